#include "registry/registry_config.h"

#include "base/option_check.h"

#define HOUR_MS (3600 * 1000ULL)
#define DAY_MS  (24 * HOUR_MS)

static const char *const stores[] = { "sqlite", "memory", NULL };
static const char *const log_levels[] = { "debug", "info", "warn", "error", NULL };

#define AT(member)                                                                                           \
	.offset = offsetof(struct registry_config, member),                                                  \
	.bytes = sizeof(((struct registry_config *)0)->member)

static const struct option rows[] = {
	{ "registry", "host", .arg = "HOST",
	    .help = "address to listen on; called as infini-registry 0.0.0.0, unless it is set",
	    .type = OPTION_STRING, .def = "127.0.0.1", .check = option_check_host, AT(host) },
	{ "registry", "port", .help = "port to listen on; 0 takes a free one and says which",
	    .type = OPTION_UINT, .def = "8081", .max = UINT16_MAX, AT(port) },
	{ "registry", "store", .help = "where the records are: in a file that survives, or in memory",
	    .type = OPTION_ENUM, .choices = stores, .def = "sqlite", AT(store) },
	{ "registry", "state_dir", .arg = "DIR",
	    .help =
		"the folder of that file; without one $XDG_STATE_HOME/headrace or ~/.local/state/headrace, "
		"which is made when it is not there",
	    .type = OPTION_STRING, AT(state_dir) },
	{ "registry", "token", .arg = "TOKEN",
	    .help = "bearer token that requests which change something must bring", .type = OPTION_STRING,
	    .secret = true, .check = option_check_token, AT(token) },
	{ "registry", "allow", .arg = "RANGE,...",
	    .help = "address ranges that may be registered; without any all but link-local, metadata and "
		    "multicast addresses. Other names than localhost are not looked up when "
		    "they are registered, but "
		    "no probe goes to an address outside",
	    .type = OPTION_LIST, .check = address_range_mistake, AT(allow) },
	{ "registry", "ttl",
	    .help = "how long a record that is registered without a ttl of its own is alive after a "
		    "heartbeat, in whole seconds",
	    .type = OPTION_DURATION, .def = "120s", .min = 1000, .max = DAY_MS, AT(ttl_ms) },
	{ "registry", "health_interval", .help = "between two probes of a record; 0 makes none",
	    .type = OPTION_DURATION, .def = "30s", .min = 50, .max = DAY_MS, .can_be_off = true,
	    .unit_ms = 1000, AT(health_interval_ms) },
	{ "registry", "health_timeout", .help = "for a probe", .type = OPTION_DURATION, .def = "5s", .min = 1,
	    .max = HOUR_MS, .unit_ms = 1000, AT(health_timeout_ms) },
	{ "registry", "cleanup_interval", .help = "how often dead records are swept out",
	    .type = OPTION_DURATION, .def = "60s", .min = 10, .max = DAY_MS, .unit_ms = 1000,
	    AT(cleanup_interval_ms) },
	{ "registry", "body_limit", .help = "largest body of a request; beyond is 413", .type = OPTION_SIZE,
	    .def = "1MiB", .min = 1024, .max = 64ULL << 20, AT(body_limit_bytes) },
	{ "registry", "max_records", .help = "how many records there may be; beyond is 503",
	    .type = OPTION_UINT, .def = "20000", .min = 1, .max = 1000000, AT(n_records_max) },

	{ "tls", "certificates", .flag = "tls-certificates", .arg = "CHAIN:KEY...",
	    .help =
		"PEM files of certificate chain and key, or one with both: with any, all must speak TLS; who "
		"names no host of theirs is shown the first",
	    .type = OPTION_LIST, AT(tls.certificates) },
	{ "tls", "certificate", .flag = "ssl-certfile", .arg = "FILE", .help = "the chain of a single one",
	    .type = OPTION_STRING, AT(tls.chain) },
	{ "tls", "key", .flag = "ssl-keyfile", .arg = "FILE", .help = "and its key, if not in the same file",
	    .type = OPTION_STRING, AT(tls.key) },
	{ "tls", "client_ca", .flag = "ssl-ca-certs", .arg = "FILE",
	    .help = "others must show a certificate that one of these has signed", .type = OPTION_STRING,
	    AT(tls.files.client_ca) },
	{ "tls", "peer_ca", .flag = "peer-ca", .arg = "FILE",
	    .help = "who may have signed the certificates of those who are probed by https, in place of the "
		    "system's",
	    .type = OPTION_STRING, AT(peer.ca) },
	{ "tls", "peer_insecure", .flag = "peer-insecure",
	    .help = "whether they are believed whatever certificate they show; for tests",
	    .type = OPTION_BOOL, .def = "false", AT(peer.is_insecure) },
	{ "tls", "peer_certificate", .flag = "peer-certificate", .arg = "FILE",
	    .help = "certificate chain to show to them", .type = OPTION_STRING, AT(peer.certificate.chain) },
	{ "tls", "peer_key", .flag = "peer-certificate-key", .arg = "FILE",
	    .help = "and its key, if not in the same file", .type = OPTION_STRING, AT(peer.certificate.key) },
	{ "log", "level", .help = "events below it are not written", .type = OPTION_ENUM,
	    .choices = log_levels, .def = "info", AT(log_level) },
};

#undef AT

static const struct option_table tables[] = {
	{ "registry", "the registry" },
	{ "tls", "encryption and who is who" },
	{ "log", "what is written to standard error" },
};

static const struct option_schema schema = {
	.program = "headrace registry",
	.summary = "who is in the fleet: records, leases, health, watch",
	.main_table = "registry",
	.env_prefix = "HEADRACE",
	.tables = tables,
	.n_tables = n_elems(tables),
	.rows = rows,
	.n_rows = n_elems(rows),
	.page = {
		.description =
		    "Babysitters register engines here, renew their leases by heartbeats and take them out again; routers "
		    "ask or watch. A record is alive while its status is running and its last heartbeat is younger than "
		    "its ttl; its health, as probed, is told apart from that.\n"
		    "What was acknowledged is on disk. After a restart each lease has its full time again, spread out. "
		    "While the disk is full or read-only, changes are answered by 503 and everything else goes on.\n"
		    "The endpoints:\n"
		    " GET /health                      the registry itself\n"
		    " GET /services                    all records; ?status=TEXT, ?healthy=true|false\n"
		    " GET /services?watch=1            changes, by events or long poll; &since=EPOCH:VERSION\n"
		    " POST /services                   registers\n"
		    " GET, PUT, DELETE /services/NAME  one record\n"
		    " GET /services/NAME/health        probes it at once\n"
		    " POST /services/NAME/heartbeat    renews its lease\n"
		    " GET /stats                       counts by status and host\n"
		    " GET /metrics                     the same and more, for Prometheus\n"
		    "Called as infini-registry it listens at 0.0.0.0 unless told otherwise. Intervals and timeouts "
		    "without a unit are seconds.",
		.signals = "SIGTERM and SIGINT stop it in order: what was asked is answered, what was taken is stored. "
			   "READY=1 is sent to $NOTIFY_SOCKET once it listens. SIGHUP reads the files of [tls] again; if "
			   "one is wrong, all stays as it was.",
		.examples = " headrace registry --host 0.0.0.0 --state-dir /var/lib/headrace\n"
			    " curl -N -H 'Accept: text/event-stream' 'localhost:8081/services?watch=1'",
	},
};

/* --- what only the values together show ------------------------------------------- */

static const char *join(struct option_set *set, const char *a, const char *b) {
	size_t n = strlen(a) + strlen(b) + 1;
	char *text = option_alloc(set, n);

	snprintf(text, n, "%s%s", a, b);
	return text;
}

/* As the XDG base directory specification has it: a relative path counts as not set. */
static const char *default_state_dir(struct option_set *set) {
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");

	if (state && state[0] == '/')
		return join(set, state, "/headrace");
	if (home && home[0] == '/')
		return join(set, home, "/.local/state/headrace");
	return "";
}

static void verify(struct option_set *set, void *arg) {
	struct registry_config *config = arg;
	struct address_range *ranges = option_alloc(set, config->allow.n * sizeof(*ranges));

	if (option_is_called(set, "infini-registry"))
		option_default(set, config, "registry.host", "0.0.0.0");
	for (size_t i = 0; i < config->allow.n; i++)
		if (!address_range_parse(slice_of(config->allow.items[i]), &ranges[i]))
			assert(option_mistakes(set) > 0); /* address_range_mistake() has said so */
	config->ranges = ranges;
	tls_options_verify_server(set, &config->tls);
	tls_options_verify_client(set, &config->peer, "tls.peer_");
	if (config->ttl_ms % 1000)
		option_mistake(set, "registry.ttl", "expected whole seconds");
	if (!config->state_dir[0])
		config->state_dir = default_state_dir(set);
	if (!config->state_dir[0] && config->store == REGISTRY_SQLITE)
		option_mistake(
		    set, "registry.state_dir", "HOME is not set either: where is the state to be?");
}

bool registry_config_is_local(const struct registry_config *config) {
	static const struct address_range local[] = { { { { 127 }, true }, 8 },
		{ { { [15] = 1 }, false }, 128 } };
	struct slice host = slice_of(config->host);
	struct address address;

	if (!address_of_host(host, &address))
		return slice_is(host, SLICE("localhost"));
	return address_range_has(&local[0], &address) || address_range_has(&local[1], &address);
}

static struct slice without_brackets(struct slice host) {
	const char *end = host.n && host.p[0] == '[' ? memchr(host.p, ']', host.n) : NULL;
	return end ? (struct slice){ host.p + 1, (size_t)(end - host.p - 1) } : host;
}

static size_t n_before_path(struct slice url) {
	size_t n = 0;

	while (n < url.n && !strchr("/?#", url.p[n]))
		n++;
	return n;
}

struct slice registry_url_host(struct slice url) {
	size_t n = n_before_path(url);

	if (url.n - n >= 2 && memcmp(url.p + n, "//", 2) == 0 && (n == 0 || url.p[n - 1] == ':'))
		url = slice_skip(url, n + 2);
	url.n = n_before_path(url);
	const char *at = url.n ? memrchr(url.p, '@', url.n) : NULL;
	if (at)
		url = slice_skip(url, (size_t)(at - url.p) + 1);
	const char *end = url.n ? memchr(url.p, url.p[0] == '[' ? ']' : ':', url.n) : NULL;
	if (!end)
		return url;
	return slice_head(url, (size_t)(end - url.p) + (*end == ']'));
}

bool registry_config_allows(const struct registry_config *config, struct slice host, struct slice url) {
	size_t n = config->allow.n;

	return address_range_allow(config->ranges, n, without_brackets(host)) &&
	    address_range_allow(config->ranges, n, without_brackets(registry_url_host(url)));
}

bool registry_config_allows_address(
    const struct registry_config *config, const struct sockaddr_storage *address) {
	return address_range_allow_address(config->ranges, config->allow.n, address);
}

int registry_config_load(struct registry_config *config, int argc, char *const *argv) {
	*config = (struct registry_config){ .options = option_set_new(&schema) };
	return option_start(config->options, argc, argv, config, verify);
}

void registry_config_deinit(struct registry_config *config) {
	option_set_free(&config->options);
}
