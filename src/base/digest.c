#include "base/digest.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

struct digester {
	EVP_MD *sha256; /* fetched once: EVP_sha256() is looked up, under a lock, by each digest */
	EVP_MD_CTX *context;
};

struct digester *digester_new(void) {
	struct digester *d = calloc(1, sizeof(*d));

	d->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	d->context = EVP_MD_CTX_new();
	assert(d->sha256 && d->context);
	return d;
}

void digester_free(struct digester **digester) {
	struct digester *d = *digester;

	*digester = NULL;
	if (!d)
		return;
	EVP_MD_CTX_free(d->context);
	EVP_MD_free(d->sha256);
	free(d);
}

void digester_sha256(struct digester *d, struct slice text, uint8_t digest_out[static DIGEST_BYTES]) {
	unsigned n = 0;
	int is_good = EVP_DigestInit_ex2(d->context, d->sha256, NULL) &&
	    EVP_DigestUpdate(d->context, text.n ? text.p : "", text.n) &&
	    EVP_DigestFinal_ex(d->context, digest_out, &n);

	assert(is_good && n == DIGEST_BYTES);
}

bool digest_is_equal(const void *a, const void *b, size_t n) {
	return CRYPTO_memcmp(a, b, n) == 0;
}

bool digest_is_same_text(struct slice a, struct slice b) {
	return a.n == b.n && (a.n == 0 || CRYPTO_memcmp(a.p, b.p, a.n) == 0);
}

void digest_wipe(void *secret, size_t n) {
	OPENSSL_cleanse(secret, n);
}
