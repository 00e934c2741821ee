/*
 * Contexts of OpenSSL from files.
 *
 * A server has one SSL_CTX a certificate. Sessions begin with the first one's, whose
 * ticket keys and rules for clients hold for all; as soon as a client has said whom it
 * looks for, its session is shown the certificate of that name. That happens before a
 * ticket is looked at, so that a ticket of another name is none.
 */
#include "net/tls_context.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/slice.h"

#define CIPHERS_1_2      "ECDHE+AESGCM:ECDHE+CHACHA20"
#define GROUPS           "X25519:P-256:P-384"
#define SECURITY_LEVEL   2
#define TICKET_SECONDS   7200
#define SERVER_NAME_MAX  255
#define SERVER_NAME_HEAD 5 /* length of the list, kind, length of the name */

struct tls_name {
	char text[SERVER_NAME_MAX + 1]; /* lower case; without the star of a wildcard: ".example.org" */
	size_t context;
};

struct tls_server {
	_Atomic unsigned refs;
	SSL_CTX **contexts;
	size_t n;
	struct tls_name *names;
	size_t n_names;
};

struct tls_client {
	_Atomic unsigned refs;
	SSL_CTX *context;
	bool is_insecure;
};

/* --- what goes wrong ---------------------------------------------------------------- */

static void say_why(char *why, const char *file, const char *what) {
	snprintf(why, TLS_WHY_BYTES, "%s: %s", file, what);
}

/* What OpenSSL said last of a file, or of what is in it. */
static void say_error(char *why, const char *file, const char *otherwise) {
	unsigned long error = ERR_peek_error(); /* the first is the cause of the others */
	const char *reason = ERR_reason_error_string(error);

	if (ERR_SYSTEM_ERROR(error))
		say_why(why, file, strerror(ERR_GET_REASON(error)));
	else if (ERR_GET_REASON(error) == ERR_R_INTERRUPTED_OR_CANCELLED) /* by no_pass_phrase() */
		say_why(why, file, "its key has a pass phrase");
	else if (ERR_GET_REASON(error) == ERR_R_UNSUPPORTED ||
	    (ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE))
		say_why(why, file, otherwise);
	else
		say_why(why, file, reason ? reason : otherwise);
	ERR_clear_error();
}

/* --- both sides --------------------------------------------------------------------- */

/* A key with a pass phrase is an error: OpenSSL would ask the terminal for it. */
static int no_pass_phrase(char *text, int size, int is_writing, void *context) {
	return -1;
}

static SSL_CTX *context_new(const SSL_METHOD *method) {
	SSL_CTX *c = SSL_CTX_new(method);

	assert(c);
	SSL_CTX_set_min_proto_version(c, TLS1_2_VERSION);
	SSL_CTX_set_security_level(c, SECURITY_LEVEL);
	SSL_CTX_set_options(
	    c, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
	SSL_CTX_set_mode(c,
	    SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_read_ahead(c, 1);
	SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_default_passwd_cb(c, no_pass_phrase);
	int r = SSL_CTX_set_cipher_list(c, CIPHERS_1_2) && SSL_CTX_set1_groups_list(c, GROUPS);
	assert(r == 1);
	return c;
}

static bool context_take(SSL_CTX *c, const struct tls_files *files, char *why) {
	ERR_clear_error();
	if (SSL_CTX_use_certificate_chain_file(c, files->chain) != 1)
		say_error(why, files->chain, "there is no certificate in it");
	else if (SSL_CTX_use_PrivateKey_file(c, files->key, SSL_FILETYPE_PEM) != 1)
		say_error(why, files->key, "there is no private key in it");
	else if (SSL_CTX_check_private_key(c) != 1)
		say_error(why, files->key, "it is not the key of the certificate");
	else
		return true;
	return false;
}

static bool context_trust(SSL_CTX *c, const char *ca, char *why) {
	ERR_clear_error();
	if (SSL_CTX_load_verify_file(c, ca) == 1)
		return true;
	say_error(why, ca, "there is no certificate in it");
	return false;
}

/* --- the server: names -------------------------------------------------------------- */

static void server_add_name(struct tls_server *s, struct slice name, size_t context) {
	struct tls_name *entry;

	if (name.n > 2 && name.p[0] == '*' && name.p[1] == '.')
		name = slice_skip(name, 1);
	if (!name.n || name.n > SERVER_NAME_MAX || memchr(name.p, '*', name.n))
		return;
	s->names = realloc(s->names, (s->n_names + 1) * sizeof(*s->names));
	entry = &s->names[s->n_names++];
	*entry = (struct tls_name){ .context = context };
	for (size_t i = 0; i < name.n; i++)
		entry->text[i] = ascii_lower(name.p[i]);
}

static void server_add_names(struct tls_server *s, size_t context) {
	X509 *certificate = SSL_CTX_get0_certificate(s->contexts[context]);
	GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);

	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
		if (name->type == GEN_DNS)
			server_add_name(s,
			    (struct slice){ (const char *)ASN1_STRING_get0_data(name->d.dNSName),
				(size_t)ASN1_STRING_length(name->d.dNSName) },
			    context);
	}
	GENERAL_NAMES_free(names);
}

static bool server_has(const struct tls_server *s, const char *text, size_t *context_out) {
	for (size_t i = 0; i < s->n_names; i++)
		if (strcmp(s->names[i].text, text) == 0) {
			*context_out = s->names[i].context;
			return true;
		}
	return false;
}

/* The whole name counts more than a wildcard, which stands for one label. */
static size_t server_find(const struct tls_server *s, const char *name) {
	const char *parent = strchr(name, '.');
	size_t context = 0;

	if (!server_has(s, name, &context) && parent && parent != name)
		(void)server_has(s, parent, &context);
	return context;
}

/* The name in the extension of RFC 6066 section 3, in lower case; "" if there is none that could be one. */
static void read_server_name(SSL *ssl, char name_out[SERVER_NAME_MAX + 1]) {
	const unsigned char *p;
	size_t n;

	memset(name_out, 0, SERVER_NAME_MAX + 1);
	if (!SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &p, &n) || n <= SERVER_NAME_HEAD)
		return;
	size_t length = (size_t)p[3] << 8 | p[4];
	if (p[2] != TLSEXT_NAMETYPE_host_name || length > n - SERVER_NAME_HEAD || length > SERVER_NAME_MAX)
		return;
	for (size_t i = 0; i < length; i++)
		name_out[i] = ascii_lower((char)p[SERVER_NAME_HEAD + i]);
}

static int on_client_hello(SSL *ssl, int *alert, void *context) {
	const struct tls_server *s = context;
	unsigned char session_context[SHA256_DIGEST_LENGTH];
	char name[SERVER_NAME_MAX + 1];

	read_server_name(ssl, name);
	SSL_set_SSL_CTX(ssl, s->contexts[server_find(s, name)]);
	SHA256((const unsigned char *)name, sizeof(name), session_context);
	SSL_set_session_id_context(ssl, session_context, sizeof(session_context));
	return SSL_CLIENT_HELLO_SUCCESS;
}

/* A client that speaks of protocols and not of ours would not understand us (RFC 7301 section 3.2). */
static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_n, const unsigned char *in,
    unsigned in_n, void *context) {
	for (unsigned i = 0; i < in_n; i += 1u + in[i])
		if (slice_eq((struct slice){ (const char *)in + i + 1, in[i] }, SLICE("http/1.1"))) {
			*out = in + i + 1;
			*out_n = in[i];
			return SSL_TLSEXT_ERR_OK;
		}
	return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* --- the server --------------------------------------------------------------------- */

static bool server_ask_clients(SSL_CTX *c, const char *ca, char *why) {
	if (!ca[0])
		return true;
	if (!context_trust(c, ca, why))
		return false;
	SSL_CTX_set_client_CA_list(c, SSL_load_client_CA_file(ca));
	SSL_CTX_set_verify(c, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	return true;
}

static bool server_fill(struct tls_server *s, const struct tls_server_files *files, char *why) {
	s->contexts = calloc(files->n, sizeof(SSL_CTX *));
	for (s->n = 0; s->n < files->n;) {
		SSL_CTX *c = s->contexts[s->n] = context_new(TLS_server_method());
		SSL_CTX_set_client_hello_cb(c, on_client_hello, s);
		SSL_CTX_set_alpn_select_cb(c, on_alpn, NULL);
		SSL_CTX_set_timeout(c, TICKET_SECONDS);
		SSL_CTX_set_num_tickets(c, 1);
		s->n++;
		if (!context_take(c, &files->certificates[s->n - 1], why) ||
		    !server_ask_clients(c, files->client_ca, why))
			return false;
		server_add_names(s, s->n - 1);
	}
	return true;
}

struct tls_server *tls_server_new(const struct tls_server_files *files, char why[static TLS_WHY_BYTES]) {
	struct tls_server *s = calloc(1, sizeof(*s));

	assert(files->n > 0);
	s->refs = 1;
	if (!server_fill(s, files, why))
		tls_server_unref(&s);
	return s;
}

struct tls_server *tls_server_ref(struct tls_server *s) {
	if (s)
		atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	return s;
}

void tls_server_unref(struct tls_server **sp) {
	struct tls_server *s = *sp;

	*sp = NULL;
	if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) > 1)
		return;
	for (size_t i = 0; i < s->n; i++)
		SSL_CTX_free(s->contexts[i]);
	free(s->contexts);
	free(s->names);
	free(s);
}

struct ssl_st *tls_server_session(const struct tls_server *s) {
	SSL *ssl = SSL_new(s->contexts[0]);

	if (ssl)
		SSL_set_accept_state(ssl);
	return ssl;
}

/* --- the client --------------------------------------------------------------------- */

static bool client_fill(struct tls_client *c, const struct tls_client_files *files, char *why) {
	static const unsigned char protocols[] = "\x8http/1.1";

	c->context = context_new(TLS_client_method());
	c->is_insecure = files->is_insecure;
	SSL_CTX_set_alpn_protos(c->context, protocols, sizeof(protocols) - 1);
	if (files->certificate.chain[0] && !context_take(c->context, &files->certificate, why))
		return false;
	if (files->is_insecure)
		return true;
	SSL_CTX_set_verify(c->context, SSL_VERIFY_PEER, NULL);
	if (!files->ca[0])
		return SSL_CTX_set_default_verify_paths(c->context) == 1;
	return context_trust(c->context, files->ca, why);
}

struct tls_client *tls_client_new(const struct tls_client_files *files, char why[static TLS_WHY_BYTES]) {
	struct tls_client *c = calloc(1, sizeof(*c));

	c->refs = 1;
	say_why(why, "TLS", "the system's certificates cannot be found");
	if (!client_fill(c, files, why))
		tls_client_unref(&c);
	return c;
}

struct tls_client *tls_client_ref(struct tls_client *c) {
	if (c)
		atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
	return c;
}

void tls_client_unref(struct tls_client **cp) {
	struct tls_client *c = *cp;

	*cp = NULL;
	if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) > 1)
		return;
	SSL_CTX_free(c->context);
	free(c);
}

static bool is_address(const char *host) {
	struct in6_addr room;

	return inet_pton(AF_INET, host, &room) == 1 || inet_pton(AF_INET6, host, &room) == 1;
}

/* An address is nobody's server name (RFC 6066 section 3), but certificates may have it. */
static bool client_expect(SSL *ssl, const char *host) {
	X509_VERIFY_PARAM *rules = SSL_get0_param(ssl);

	if (is_address(host))
		return X509_VERIFY_PARAM_set1_ip_asc(rules, host) == 1;
	X509_VERIFY_PARAM_set_hostflags(rules, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return SSL_set_tlsext_host_name(ssl, host) == 1 && X509_VERIFY_PARAM_set1_host(rules, host, 0) == 1;
}

struct ssl_st *tls_client_session(const struct tls_client *c, const char *host) {
	SSL *ssl = SSL_new(c->context);

	if (ssl && !client_expect(ssl, host)) {
		SSL_free(ssl);
		return NULL;
	}
	if (ssl)
		SSL_set_connect_state(ssl);
	return ssl;
}
