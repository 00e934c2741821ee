/*
 * certs: certificates made for one run of a test, in files below a folder that goes with it.
 *
 * Each has chain and key in one file. A failure to make one fails the test.
 */
#pragma once

#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <unistd.h>

#include "unit/unit.h"

#define CERTS_MAX 16

struct cert {
	char path[64];
	X509 *x509;
	EVP_PKEY *key;
};

struct certs {
	char folder[32];
	struct cert all[CERTS_MAX];
	unsigned n;
};

static inline void certs_open(struct certs *c) {
	*c = (struct certs){ .folder = "/tmp/certs-XXXXXX" };
	assert_non_null(mkdtemp(c->folder));
}

static inline void certs_close(struct certs *c) {
	for (unsigned i = 0; i < c->n; i++) {
		unlink(c->all[i].path);
		X509_free(c->all[i].x509);
		EVP_PKEY_free(c->all[i].key);
	}
	assert_int_equal(rmdir(c->folder), 0);
}

static inline void certs_extend(X509 *x509, int what, const char *value) {
	X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, what, value);
	assert_non_null(extension);
	X509_add_ext(x509, extension, -1);
	X509_EXTENSION_free(extension);
}

static inline void certs_write(const struct cert *made) {
	FILE *out = fopen(made->path, "w");
	assert_non_null(out);
	assert_int_equal(PEM_write_X509(out, made->x509), 1);
	assert_int_equal(PEM_write_PrivateKey(out, made->key, NULL, NULL, 0, NULL, NULL), 1);
	fclose(out);
}

/* name: of the subject. alt: "DNS:a.example,IP:127.0.0.1", or NULL. signer NULL: itself, and it may sign. */
static inline const struct cert *certs_make(
    struct certs *c, const char *name, const char *alt, const struct cert *signer) {
	assert_true(c->n < CERTS_MAX);
	struct cert *made = &c->all[c->n++];
	X509_NAME *subject = X509_NAME_new();
	char folder[sizeof(c->folder)]; /* the compiler fears that one is printed over the other */
	memcpy(folder, c->folder, sizeof(folder));
	snprintf(made->path, sizeof(made->path), "%s/%u.pem", folder, c->n);
	made->key = EVP_EC_gen("P-256");
	made->x509 = X509_new();
	X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
	X509_set_version(made->x509, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(made->x509), c->n);
	X509_gmtime_adj(X509_getm_notBefore(made->x509), -3600);
	X509_gmtime_adj(X509_getm_notAfter(made->x509), 86400);
	X509_set_subject_name(made->x509, subject);
	X509_set_issuer_name(made->x509, signer ? X509_get_subject_name(signer->x509) : subject);
	X509_set_pubkey(made->x509, made->key);
	if (!signer)
		certs_extend(made->x509, NID_basic_constraints, "critical,CA:TRUE");
	if (alt)
		certs_extend(made->x509, NID_subject_alt_name, alt);
	assert_true(X509_sign(made->x509, signer ? signer->key : made->key, EVP_sha256()) > 0);
	X509_NAME_free(subject);
	certs_write(made);
	return made;
}
