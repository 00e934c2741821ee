/* POST /v1/rerank: documents by a relevance that depends on query and document alone. */
#include "engine/api.h"
#include "engine/random.h"

static bool read_documents(struct generation *g, const json_t *body, struct refusal *refusal) {
	json_t *documents = json_object_get(body, "documents");
	const json_t *document;
	bool good = json_array_size(documents) > 0;
	size_t i;

	json_array_foreach(documents, i, document) good = good && json_is_string(document);
	if (!good)
		return api_invalid(refusal, "documents", "documents must be an array of strings.");
	g->prompt_texts = json_incref(documents);
	return api_read_count(body, "top_n", 0, INT32_MAX, &g->n_ranked_max, refusal);
}

/* Each document is a prompt, behind the query. */
static bool parse(
    struct generation *g, const struct generation_rules *rules, const json_t *body, struct refusal *refusal) {
	const json_t *query = json_object_get(body, "query"), *document;
	size_t i;

	if (!json_is_string(query))
		return api_invalid(refusal, "query", "query must be a string.");
	if (!read_documents(g, body, refusal))
		return false;
	if (json_array_size(g->prompt_texts) > GENERATION_CHOICES_MAX)
		return api_refuse(
		    refusal, 400, "documents", "There can be at most %u documents.", GENERATION_CHOICES_MAX);
	json_array_foreach(g->prompt_texts, i, document) {
		struct prompt *p = api_add_prompt(g, rules, body);
		prompt_add(p, (struct slice){ json_string_value(query), json_string_length(query) });
		prompt_add(p, (struct slice){ "", 1 });
		prompt_add(p, (struct slice){ json_string_value(document), json_string_length(document) });
	}
	return true;
}

static double relevance_of(const struct generation_choice *c) {
	return (double)(random_nth(c->speech.seed, 0) >> 11) / (double)(1ull << 53);
}

static int by_relevance(const void *a, const void *b) {
	const struct generation_choice *const *x = a, *const *y = b;
	double difference = relevance_of(*y) - relevance_of(*x);
	return difference > 0 ? 1 : difference < 0 ? -1 : 0;
}

static json_t *whole(const struct generation *g) {
	const struct generation_choice *order[GENERATION_CHOICES_MAX];
	json_t *results = json_array();

	for (uint32_t i = 0; i < g->n_choices; i++)
		order[i] = &g->choices[i];
	qsort(order, g->n_choices, sizeof(order[0]), by_relevance);
	uint32_t n = g->n_ranked_max ? (uint32_t)u64_min(g->n_choices, g->n_ranked_max) : g->n_choices;
	for (uint32_t i = 0; i < n; i++) {
		size_t index = (size_t)(order[i] - g->choices);
		json_array_append_new(results,
		    json_pack("{s:I, s:{s:O}, s:f}", "index", (json_int_t)index, "document", "text",
			json_array_get(g->prompt_texts, index), "relevance_score", relevance_of(order[i])));
	}
	return json_pack("{s:s, s:s, s:o, s:{s:I}}", "id", g->id, "model", g->model, "results", results,
	    "usage", "total_tokens", (json_int_t)g->n_prompt_tokens);
}

const struct api api_rerank = {
	.path = "/v1/rerank",
	.other_path = "/rerank",
	.name = "rerank",
	.id_prefix = "rerank-",
	.parse = parse,
	.whole = whole,
};
