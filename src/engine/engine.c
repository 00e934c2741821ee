#include "engine/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>

#include "base/descriptors.h"
#include "engine/mock.h"

/* Reached by the signal handler alone. */
static struct mock mock;
static volatile sig_atomic_t is_stopping;

static void on_signal(int number) {
	(void)number;
	if (!is_stopping)
		mock_stop(&mock);
	is_stopping = 1;
}

static void catch_signals(void) {
	struct sigaction action = { .sa_handler = on_signal };
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
}

/* A listening socket; negative: a message was printed. */
static int engine_bind(const struct mock_config *config) {
	int fd = listener_bind_host(config->host, config->port, false);
	if (fd < 0)
		fprintf(stderr, "headrace mock-engine: %s port %u: %s\n", config->host, config->port,
		    strerror(-fd));
	return fd;
}

/* False: a message was printed. */
static bool engine_secure(const struct mock_config *config) {
	const struct tls_files files = { config->chain, config->key[0] ? config->key : config->chain };
	char why[TLS_WHY_BYTES];
	if (!files.chain[0])
		return true;
	mock.server.tls = tls_server_new(
	    &(struct tls_server_files){ .certificates = &files, .n = 1, .client_ca = "" }, why);
	if (!mock.server.tls)
		fprintf(stderr, "headrace mock-engine: %s\n", why);
	return mock.server.tls;
}

/* False: a message was printed. */
static bool engine_keep_ledger(const struct mock_config *config) {
	if (!config->ledger[0])
		return true;
	int fd = open(config->ledger, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0)
		fprintf(stderr, "headrace mock-engine: %s: %s\n", config->ledger, strerror(errno));
	else
		ledger_keep(mock.ledger, fd);
	return fd >= 0;
}

static void announce(const struct mock_config *config, uint16_t port) {
	bool is_v6 = strchr(config->host, ':');
	printf("mock engine on http%s://%s%s%s:%u (models ", config->chain[0] ? "s" : "", is_v6 ? "[" : "",
	    config->host, is_v6 ? "]" : "", port);
	for (size_t i = 0; i < config->models.n; i++)
		printf("%s%s", i ? "," : "", config->models.items[i]);
	printf(")\n");
	fflush(stdout);
}

static int serve(const struct mock_config *config) {
	(void)descriptors_raise();
	int fd = engine_bind(config);
	if (fd < 0)
		return 1;
	uint16_t port = listener_port(fd);
	int r = mock_open(&mock, config, fd);
	if (r < 0) {
		fprintf(stderr, "headrace mock-engine: %s\n", strerror(-r));
		return 1;
	}
	if (!engine_secure(config) || !engine_keep_ledger(config))
		return 1;
	catch_signals();
	announce(config, port);
	mock_run(&mock);
	mock_close(&mock);
	tls_server_unref(&mock.server.tls);
	return 0;
}

int engine_main(int argc, char **argv) {
	struct mock_config config;
	int code = mock_config_load(&config, argc, argv);
	if (code < 0)
		code = serve(&config);
	mock_config_deinit(&config);
	return code;
}
