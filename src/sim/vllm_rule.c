#include "sim/vllm_rule.h"

#include <stdlib.h>

#define CACHE_THRESHOLD  0.3
#define BALANCE_ABSOLUTE 64
#define BALANCE_RELATIVE 1.5

struct node {
	uint64_t block;
	uint32_t engine; /* + 1; 0: the place is free */
};

/* A hash table with open addressing, at most half full. */
struct vllm_rule {
	struct node *nodes;
	size_t n, mask;
	uint32_t n_engines;
};

struct vllm_rule *vllm_rule_new(uint32_t n_engines) {
	struct vllm_rule *rule = malloc(sizeof(*rule));

	*rule = (struct vllm_rule){ .mask = 1023, .n_engines = n_engines };
	rule->nodes = calloc(rule->mask + 1, sizeof(*rule->nodes));
	return rule;
}

void vllm_rule_free(struct vllm_rule **rule) {
	if (*rule)
		free((*rule)->nodes);
	free(*rule);
	*rule = NULL;
}

/* The block's node, or the free place where it would be. */
static struct node *find(const struct vllm_rule *rule, uint64_t block) {
	size_t i = (size_t)(block * 0x9e3779b97f4a7c15ull >> 32) & rule->mask;

	while (rule->nodes[i].engine && rule->nodes[i].block != block)
		i = (i + 1) & rule->mask;
	return &rule->nodes[i];
}

static void grow(struct vllm_rule *rule) {
	struct node *old = rule->nodes;
	size_t n_old = rule->mask + 1;

	rule->mask = 2 * n_old - 1;
	rule->nodes = calloc(2 * n_old, sizeof(*rule->nodes));
	for (size_t i = 0; i < n_old; i++)
		if (old[i].engine)
			*find(rule, old[i].block) = old[i];
	free(old);
}

static void insert(struct vllm_rule *rule, const uint64_t *blocks, uint32_t n_blocks, uint32_t engine) {
	for (uint32_t b = 0; b < n_blocks; b++) {
		struct node *node = find(rule, blocks[b]);

		if (node->engine)
			continue;
		*node = (struct node){ blocks[b], engine + 1 };
		if (2 * ++rule->n > rule->mask)
			grow(rule);
	}
}

/* False: the least loaded one shall have it. */
static bool match(
    const struct vllm_rule *rule, const uint64_t *blocks, uint32_t n_blocks, uint32_t *engine_out) {
	uint32_t n = 0;

	for (const struct node *node; n < n_blocks && (node = find(rule, blocks[n]))->engine; n++)
		*engine_out = node->engine - 1;
	return n > 0 && n > CACHE_THRESHOLD * n_blocks;
}

uint32_t vllm_rule_pick(
    struct vllm_rule *rule, const uint64_t *blocks, uint32_t n_blocks, const uint32_t *in_flight) {
	uint32_t least = 0, most = 0, matched, engine;

	for (uint32_t e = 1; e < rule->n_engines; e++) {
		if (in_flight[e] < in_flight[least])
			least = e;
		if (in_flight[e] > in_flight[most])
			most = e;
	}
	bool is_imbalanced = in_flight[most] - in_flight[least] > BALANCE_ABSOLUTE &&
	    in_flight[most] > BALANCE_RELATIVE * in_flight[least];
	engine = !is_imbalanced && match(rule, blocks, n_blocks, &matched) ? matched : least;
	insert(rule, blocks, n_blocks, engine);
	return engine;
}
