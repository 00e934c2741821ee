/* POST /v1/embeddings: vectors of length 1 that depend on model and input alone. */
#include <math.h>

#include "engine/api.h"
#include "engine/base64.h"
#include "engine/random.h"

#define DIMENSIONS_DEFAULT 64u
#define DIMENSIONS_MAX     4096u

static bool parse(
    struct generation *g, const struct generation_rules *rules, const json_t *body, struct refusal *refusal) {
	const char *format = json_string_value(json_object_get(body, "encoding_format"));

	g->n_dimensions = DIMENSIONS_DEFAULT;
	g->is_base64 = format && strcmp(format, "base64") == 0;
	if (format && !g->is_base64 && strcmp(format, "float") != 0)
		return api_invalid(refusal, "encoding_format", "encoding_format must be float or base64.");
	return api_read_count(body, "dimensions", 1, DIMENSIONS_MAX, &g->n_dimensions, refusal) &&
	    api_add_inputs(g, rules, body, "input", refusal);
}

static void fill_vector(const struct generation *g, uint64_t seed, float vector[static DIMENSIONS_MAX]) {
	double sum = 0;
	for (uint32_t i = 0; i < g->n_dimensions; i++) {
		vector[i] = (float)((double)(random_nth(seed, i) >> 11) / (double)(1ull << 52) - 1.0);
		sum += (double)vector[i] * (double)vector[i];
	}
	for (uint32_t i = 0; i < g->n_dimensions; i++)
		vector[i] = sum > 0 ? (float)((double)vector[i] / sqrt(sum)) : 1;
}

static json_t *vector_json(const struct generation *g, const float *vector) {
	if (g->is_base64) {
		struct bytes text = { .n_max = 8 * DIMENSIONS_MAX };
		base64_add(
		    &text, (struct slice){ (const char *)vector, g->n_dimensions * sizeof(vector[0]) });
		json_t *string = json_stringn(text.p, text.n);
		bytes_deinit(&text);
		return string;
	}
	json_t *array = json_array();
	for (uint32_t i = 0; i < g->n_dimensions; i++)
		json_array_append_new(array, json_real((double)vector[i]));
	return array;
}

static json_t *whole(const struct generation *g) {
	json_t *data = json_array();
	for (uint32_t i = 0; i < g->n_choices; i++) {
		float vector[DIMENSIONS_MAX];
		fill_vector(g, g->choices[i].speech.seed, vector);
		json_array_append_new(data,
		    json_pack("{s:i, s:s, s:o}", "index", (int)i, "object", "embedding", "embedding",
			vector_json(g, vector)));
	}
	return json_pack("{s:s, s:s, s:I, s:s, s:o, s:o}", "id", g->id, "object", "list", "created",
	    (json_int_t)g->created_s, "model", g->model, "data", data, "usage", api_usage(g));
}

const struct api api_embeddings = {
	.path = "/v1/embeddings",
	.name = "embeddings",
	.id_prefix = "embd-",
	.parse = parse,
	.whole = whole,
};
