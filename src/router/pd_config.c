#include "router/pd_config.h"

#include "base/text.h"

bool pd_config_is_url(const char *text) {
	return strstr(text, "://");
}

static bool is_none(const char *text) {
	return slice_is(slice_of(text), SLICE("none"));
}

const char *pd_config_check_port(const char *text) {
	uint64_t port;

	if (is_none(text) || (text_uint(slice_of(text), UINT16_MAX, &port) && port > 0))
		return NULL;
	return "expected http://HOST[:PORT], or behind one its bootstrap port, 1 to 65535 or none";
}

const char *pd_config_check_address(const char *text) {
	struct slice host;
	uint16_t port;

	if (!text[0] || (text_authority(slice_of(text), 0, &host, &port) && port))
		return NULL;
	return "expected HOST:PORT";
}

static struct option_map labels_of(struct option_set *set, const char *role, const char *port) {
	struct option_pair *pairs = option_alloc(set, 2 * sizeof(*pairs));

	pairs[0] = (struct option_pair){ "role", role };
	pairs[1] = (struct option_pair){ "bootstrap_port", port };
	return (struct option_map){ pairs, port ? 2 : 1 };
}

static struct router_worker worker_of(
    struct option_set *set, const char *option, const char *url, const char *role) {
	return (struct router_worker){
		.url = url,
		.api_key = "",
		.api_key_file = "",
		.weight = 1,
		.option = option,
		.labels = labels_of(set, role, NULL),
	};
}

static size_t prefill_workers(
    struct option_set *set, const struct option_list *list, struct router_worker *workers) {
	static const char path[] = "pd.prefill", role[] = "prefill";
	bool is_behind_url = false;
	size_t n = 0;

	for (size_t i = 0; i < list->n; i++) {
		const char *text = list->items[i];
		bool is_url = pd_config_is_url(text);

		if (is_url)
			workers[n++] = worker_of(set, path, text, role);
		else if (!is_behind_url)
			option_mistake(set, path, "\"%s\" stands behind no url", text);
		else if (!is_none(text))
			workers[n - 1].labels = labels_of(set, role, text);
		is_behind_url = is_url;
	}
	return n;
}

size_t pd_config_workers(
    struct option_set *set, const struct router_config *config, struct router_worker *workers) {
	const struct option_list *decode = &config->pd.decode;
	size_t n = prefill_workers(set, &config->pd.prefill, workers);

	for (size_t i = 0; i < decode->n; i++)
		workers[n++] = worker_of(set, "pd.decode", decode->items[i], "decode");
	return n;
}

static const char *label_of(const struct router_worker *worker, const char *name) {
	for (size_t i = 0; i < worker->labels.n; i++)
		if (!strcmp(worker->labels.items[i].name, name))
			return worker->labels.items[i].value;
	return "";
}

/* How many engines have this label, with this value if there is one. */
static size_t count_label(const struct router_config *config, const char *name, const char *value) {
	size_t n = 0;

	for (size_t i = 0; i < config->workers.n; i++) {
		const char *found = label_of(&config->workers.items[i], name);
		n += found[0] && (!value || !strcmp(found, value));
	}
	return n;
}

void pd_config_verify(struct option_set *set, const struct router_config *config) {
	const struct router_pd *pd = &config->pd;
	bool may_come =
	    pd->discovery_address[0] || config->registry_url[0] || config->static_services_file[0];

	if (may_come)
		return;
	if (pd->is_enabled && !count_label(config, "role", "prefill"))
		option_mistake(set, "pd.enabled",
		    "there is nobody to prefill: give --prefill, --vllm-discovery-address or --registry-url");
	else if (pd->is_enabled && !count_label(config, "role", "decode"))
		option_mistake(set, "pd.enabled",
		    "there is nobody to decode: give --decode, --vllm-discovery-address or --registry-url");
	if (!strcmp(pd->connector, "moriio") && config->workers.n &&
	    !count_label(config, "zmq_address", NULL))
		option_mistake(set, "pd.connector",
		    "moriio needs --vllm-discovery-address, or engines with the label zmq_address");
}
