/*
 * capability: what an instance can do for a model, and what a request asks of it.
 *
 * Both are bits of a mask. The words are those of the configuration (labels
 * `capabilities` and `features`), of decision records and of errors; they are stable.
 */
#pragma once

#include "base/slice.h"

/* By method and path of the request. */
enum capability {
	CAPABILITY_OTHER, /* a path that we do not know: nobody declares it, so everybody may get it */
	CAPABILITY_CHAT,
	CAPABILITY_RESPONSES,
	CAPABILITY_MESSAGES,
	CAPABILITY_COMPLETION,
	CAPABILITY_INFILL,
	CAPABILITY_EMBEDDINGS,
	CAPABILITY_RERANK,
	CAPABILITY_SCORE, /* score, classify, pooling */
	CAPABILITY_TRANSCRIPTION,
	CAPABILITY_TRANSLATION,
	CAPABILITY_SPEECH,
	CAPABILITY_IMAGE,
	CAPABILITY_MODERATION,
	CAPABILITY_TOKENS, /* tokenize, detokenize, count_tokens */
};

#define CAPABILITIES 15

/* By the body. */
enum feature {
	FEATURE_STREAM,
	FEATURE_TOOLS,
	FEATURE_STRUCTURED_OUTPUT,
	FEATURE_IMAGE_INPUT,
	FEATURE_AUDIO_INPUT,
	FEATURE_LOGPROBS,
	FEATURE_N, /* more than one choice */
	FEATURE_REASONING,
	FEATURE_ADAPTER, /* LoRA, named beside the model */
};

#define FEATURES 9

const char *capability_text(enum capability capability);
const char *feature_text(enum feature feature);

/* What requests with this method and path ask for; a query string is not part of the path. */
enum capability capability_of(struct slice method, struct slice path);

/*
 * The bits of a list of words, separated by commas and blanks. "chat" stands for the three
 * APIs that chat: chat, responses, messages. False, and nothing, when a word is unknown.
 */
bool capability_mask(struct slice words, uint32_t *mask_out);
bool feature_mask(struct slice words, uint32_t *mask_out);
