#include "fleet/capability.h"

static const char *const capability_words[CAPABILITIES] = {
	[CAPABILITY_OTHER] = "other",
	[CAPABILITY_CHAT] = "chat",
	[CAPABILITY_RESPONSES] = "responses",
	[CAPABILITY_MESSAGES] = "messages",
	[CAPABILITY_COMPLETION] = "completion",
	[CAPABILITY_INFILL] = "infill",
	[CAPABILITY_EMBEDDINGS] = "embeddings",
	[CAPABILITY_RERANK] = "rerank",
	[CAPABILITY_SCORE] = "score",
	[CAPABILITY_TRANSCRIPTION] = "transcription",
	[CAPABILITY_TRANSLATION] = "translation",
	[CAPABILITY_SPEECH] = "speech",
	[CAPABILITY_IMAGE] = "image",
	[CAPABILITY_MODERATION] = "moderation",
	[CAPABILITY_TOKENS] = "tokens",
};

static const char *const feature_words[FEATURES] = {
	[FEATURE_STREAM] = "stream",
	[FEATURE_TOOLS] = "tools",
	[FEATURE_STRUCTURED_OUTPUT] = "structured_output",
	[FEATURE_IMAGE_INPUT] = "image_input",
	[FEATURE_AUDIO_INPUT] = "audio_input",
	[FEATURE_LOGPROBS] = "logprobs",
	[FEATURE_N] = "n",
	[FEATURE_REASONING] = "reasoning",
	[FEATURE_ADAPTER] = "adapter",
};

/* The routes of vLLM's online serving, OpenAI, Anthropic, Ollama and llama.cpp. All of them are POST. */
static const struct {
	struct slice path;
	enum capability capability;
} routes[] = {
#define ROUTE(text, capability)                                                                              \
	{ { text, sizeof(text) - 1 }, capability }
	ROUTE("/v1/chat/completions", CAPABILITY_CHAT),
	ROUTE("/api/chat", CAPABILITY_CHAT),
	ROUTE("/v1/responses", CAPABILITY_RESPONSES),
	ROUTE("/v1/messages", CAPABILITY_MESSAGES),
	ROUTE("/v1/completions", CAPABILITY_COMPLETION),
	ROUTE("/completion", CAPABILITY_COMPLETION),
	ROUTE("/completions", CAPABILITY_COMPLETION),
	ROUTE("/chat/completions", CAPABILITY_CHAT),
	ROUTE("/generate", CAPABILITY_COMPLETION),
	ROUTE("/api/generate", CAPABILITY_COMPLETION),
	ROUTE("/infill", CAPABILITY_INFILL),
	ROUTE("/v1/embeddings", CAPABILITY_EMBEDDINGS),
	ROUTE("/v2/embed", CAPABILITY_EMBEDDINGS),
	ROUTE("/api/embed", CAPABILITY_EMBEDDINGS),
	ROUTE("/api/embeddings", CAPABILITY_EMBEDDINGS),
	ROUTE("/rerank", CAPABILITY_RERANK),
	ROUTE("/v1/rerank", CAPABILITY_RERANK),
	ROUTE("/v2/rerank", CAPABILITY_RERANK),
	ROUTE("/score", CAPABILITY_SCORE),
	ROUTE("/v1/score", CAPABILITY_SCORE),
	ROUTE("/classify", CAPABILITY_SCORE),
	ROUTE("/pooling", CAPABILITY_SCORE),
	ROUTE("/v1/audio/transcriptions", CAPABILITY_TRANSCRIPTION),
	ROUTE("/v1/audio/translations", CAPABILITY_TRANSLATION),
	ROUTE("/v1/audio/speech", CAPABILITY_SPEECH),
	ROUTE("/v1/images/generations", CAPABILITY_IMAGE),
	ROUTE("/v1/images/edits", CAPABILITY_IMAGE),
	ROUTE("/v1/images/variations", CAPABILITY_IMAGE),
	ROUTE("/v1/moderations", CAPABILITY_MODERATION),
	ROUTE("/tokenize", CAPABILITY_TOKENS),
	ROUTE("/detokenize", CAPABILITY_TOKENS),
	ROUTE("/v1/messages/count_tokens", CAPABILITY_TOKENS),
#undef ROUTE
};

const char *capability_text(enum capability capability) {
	assert(capability < CAPABILITIES);
	return capability_words[capability];
}

const char *feature_text(enum feature feature) {
	assert(feature < FEATURES);
	return feature_words[feature];
}

enum capability capability_of(struct slice method, struct slice path) {
	if (!slice_eq(method, SLICE("POST")))
		return CAPABILITY_OTHER;
	for (size_t i = 0; i < n_elems(routes); i++)
		if (slice_eq(routes[i].path, path))
			return routes[i].capability;
	return CAPABILITY_OTHER;
}

/* The next word of the list, which loses it; empty at the end. */
static struct slice take_word(struct slice *words) {
	size_t begin = 0, end;

	while (begin < words->n && (words->p[begin] == ',' || words->p[begin] == ' '))
		begin++;
	for (end = begin; end < words->n && words->p[end] != ',' && words->p[end] != ' ';)
		end++;
	struct slice word = { words->p + begin, end - begin };
	*words = slice_skip(*words, end);
	return word;
}

static bool mask_of(struct slice words, const char *const *known, unsigned n_known, uint32_t *mask_out) {
	uint32_t mask = 0;

	for (struct slice word = take_word(&words); word.n; word = take_word(&words)) {
		unsigned i = 0;

		while (i < n_known && !slice_eq(slice_of(known[i]), word))
			i++;
		if (i == n_known)
			return false;
		mask |= UINT32_C(1) << i;
	}
	*mask_out = mask;
	return true;
}

bool capability_mask(struct slice words, uint32_t *mask_out) {
	uint32_t mask;

	if (!mask_of(words, capability_words, CAPABILITIES, &mask))
		return false;
	if (mask >> CAPABILITY_CHAT & 1)
		mask |= UINT32_C(1) << CAPABILITY_RESPONSES | UINT32_C(1) << CAPABILITY_MESSAGES;
	*mask_out = mask;
	return true;
}

bool feature_mask(struct slice words, uint32_t *mask_out) {
	return mask_of(words, feature_words, FEATURES, mask_out);
}
