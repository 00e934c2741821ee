/*
 * One table says which members of a body are wanted. Most are only looked at when somebody
 * asks; three kinds are dealt with as they pass, because they may be long or many: the values
 * that are prompt or its space, whose bytes go to the chain, the texts that name a session, of which a hash
 * stays, and the types of what stands in messages.
 */
#include "router/inspect.h"

#include "router/form.h"
#include "router/own_field.h"
#include "router/prompt_chain.h"
#include "router/scan.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define MODEL_BYTES_MAX   256
#define SESSION_BYTES_MAX 256
#define TYPE_BYTES_MAX    16

enum want {
	/* The prompt's space: engines share nothing between two of these. */
	WANT_CACHE_SALT,
	WANT_EXTRA_KEY,
	WANT_ADAPTER, /* or one for each prompt */
	WANT_LORA,
	/* The prompt. Of those that make one part the first counts, wherever it stands. */
	WANT_TOOLS,
	WANT_SYSTEM,
	WANT_INSTRUCTIONS,
	WANT_MESSAGES,
	WANT_PROMPT,
	WANT_INPUT,
	WANT_TEXT,
	WANT_INPUT_IDS,
	WANT_TOKEN_IDS,
	/* The same of what is compared, see reads_pairs. */
	WANT_QUERY,
	WANT_TEXT_1,
	WANT_DOCUMENTS,
	WANT_TEXT_2,
	/* Types, see kinds. */
	WANT_MESSAGE_PART,
	WANT_INPUT_PART,
	WANT_RESULT_PART,
	WANT_OUTPUT_PART, /* of what a tool put out, as Responses have it */
	WANT_RESPONSE_FORMAT,
	WANT_TEXT_FORMAT,
	WANT_EFFORT,
	WANT_THINKING_TYPE,
	WANT_ADAPTER_ITEM,
	/* Texts of conversations, which are no media. */
	WANT_MESSAGE_CONTENT,
	WANT_MESSAGE_TEXT,
	WANT_INPUT_CONTENT,
	WANT_INPUT_TEXT,
	/* Used once they have a value that says something, see is_used(). */
	WANT_STRUCTURE,
	WANT_IMAGE,
	WANT_IMAGE_ITEM,
	WANT_AUDIO,
	WANT_AUDIO_ITEM,
	/* Rare: of names of equal length those that stand first are found last. */
	WANT_LORA_SCALE,
	WANT_SUFFIX,
	/* Sessions, see session_members. */
	WANT_CACHE_KEY,
	WANT_CONVERSATION,
	WANT_CONVERSATION_ID,
	WANT_PREVIOUS_RESPONSE,
	WANT_SESSION_ID,
	WANT_METADATA_USER,
	WANT_USER,
	/* Looked at in the end. */
	WANT_MODEL,
	WANT_STREAM,
	WANT_TOOL,
	WANT_FUNCTION,
	WANT_LOGPROBS,
	WANT_N,
	WANT_BEST_OF,
	WANT_SAMPLING_N,
	WANT_REASONING,
	WANT_THINKING,
	/* The output's limit: the first that is there counts. */
	WANT_MAX_COMPLETION_TOKENS,
	WANT_MAX_TOKENS,
	WANT_MAX_OUTPUT_TOKENS,
	WANT_N_PREDICT,
	WANT_MAX_NEW_TOKENS,
	WANT_SAMPLING_MAX_NEW_TOKENS,
	WANT_SAMPLING_MAX_TOKENS,
	WANT_NUM_PREDICT,
	N_WANTS,
};

#define TYPE(member)                                                                                         \
	{ .path = member, .text_bytes_max = TYPE_BYTES_MAX, .tells = true }
#define SESSION(member)                                                                                      \
	{ .path = member, .text_bytes_max = SESSION_BYTES_MAX, .tells = true }

/* What the answer must look like: of vLLM, of SGLang, of llama.cpp and Ollama. */
#define STRUCTURE                                                                                            \
	"guided_json|guided_regex|guided_choice.[]|guided_grammar|structured_outputs|"                       \
	"sampling_params.structured_outputs|sampling_params.regex|sampling_params.ebnf|"                     \
	"sampling_params.json_schema|sampling_params.structural_tag|regex|ebnf|json_schema|grammar|format"

static const struct scan_want wants[N_WANTS] = {
	[WANT_CACHE_SALT] = { .path = "cache_salt", .tells = true },
	[WANT_EXTRA_KEY] = { .path = "extra_key", .tells = true },
	[WANT_ADAPTER] = { .path = "lora_path", .tells = true },
	[WANT_LORA] = { .path = "lora", .tells = true },
	[WANT_TOOLS] = { .path = "tools", .tells = true },
	[WANT_SYSTEM] = { .path = "system", .tells = true },
	[WANT_INSTRUCTIONS] = { .path = "instructions", .tells = true },
	[WANT_MESSAGES] = { .path = "messages", .tells = true },
	[WANT_PROMPT] = { .path = "prompt", .tells = true },
	[WANT_INPUT] = { .path = "input", .tells = true },
	[WANT_TEXT] = { .path = "text", .tells = true },
	[WANT_INPUT_IDS] = { .path = "input_ids", .tells = true },
	[WANT_TOKEN_IDS] = { .path = "token_ids", .tells = true },
	[WANT_QUERY] = { .path = "query", .tells = true },
	[WANT_TEXT_1] = { .path = "text_1", .tells = true },
	[WANT_DOCUMENTS] = { .path = "documents", .tells = true },
	[WANT_TEXT_2] = { .path = "text_2", .tells = true },
	[WANT_MESSAGE_PART] = TYPE("messages.[].content.[].type"),
	[WANT_INPUT_PART] = TYPE("input.[].content.[].type"),
	[WANT_RESULT_PART] = TYPE("messages.[].content.[].content.[].type"),
	[WANT_OUTPUT_PART] = TYPE("input.[].output.[].type"),
	[WANT_RESPONSE_FORMAT] = TYPE("response_format.type"),
	[WANT_TEXT_FORMAT] = TYPE("text.format.type"),
	[WANT_EFFORT] = TYPE("reasoning_effort"),
	[WANT_THINKING_TYPE] = TYPE("thinking.type"),
	[WANT_ADAPTER_ITEM] = TYPE("lora_path.[]"),
	[WANT_MESSAGE_CONTENT] = { .path = "messages.[].content", .tells = true },
	[WANT_MESSAGE_TEXT] = { .path = "messages.[].content.[].text", .tells = true },
	[WANT_INPUT_CONTENT] = { .path = "input.[].content", .tells = true },
	[WANT_INPUT_TEXT] = { .path = "input.[].content.[].text", .tells = true },
	[WANT_STRUCTURE] = { .path = STRUCTURE, .tells = true },
	[WANT_IMAGE] = { .path = "image_data|video_data", .tells = true },
	[WANT_IMAGE_ITEM] = { .path = "image_data.[]|video_data.[]|images.[]|messages.[].images.[]",
	    .tells = true },
	[WANT_AUDIO] = { .path = "audio_data", .tells = true },
	[WANT_AUDIO_ITEM] = { .path = "audio_data.[]", .tells = true },
	[WANT_LORA_SCALE] = { .path = "lora.[].scale", .tells = true },
	[WANT_SUFFIX] = { .path = "suffix" },
	[WANT_CACHE_KEY] = SESSION("prompt_cache_key"),
	[WANT_CONVERSATION] = SESSION("conversation"),
	[WANT_CONVERSATION_ID] = SESSION("conversation.id"),
	[WANT_PREVIOUS_RESPONSE] = SESSION("previous_response_id"),
	[WANT_SESSION_ID] = SESSION("session_params.session_id"),
	[WANT_METADATA_USER] = SESSION("metadata.user_id"),
	[WANT_USER] = SESSION("user"),
	[WANT_MODEL] = { .path = "model", .text_bytes_max = MODEL_BYTES_MAX, .unique = true },
	[WANT_STREAM] = { .path = "stream" },
	[WANT_TOOL] = { .path = "tools.[]" },
	[WANT_FUNCTION] = { .path = "functions.[]" },
	[WANT_LOGPROBS] = { .path = "logprobs" },
	[WANT_N] = { .path = "n" },
	[WANT_BEST_OF] = { .path = "best_of" },
	[WANT_SAMPLING_N] = { .path = "sampling_params.n" },
	[WANT_REASONING] = { .path = "reasoning" },
	[WANT_THINKING] = { .path = "thinking" },
	[WANT_MAX_COMPLETION_TOKENS] = { .path = "max_completion_tokens" },
	[WANT_MAX_TOKENS] = { .path = "max_tokens" },
	[WANT_MAX_OUTPUT_TOKENS] = { .path = "max_output_tokens" },
	[WANT_N_PREDICT] = { .path = "n_predict" },
	[WANT_MAX_NEW_TOKENS] = { .path = "max_new_tokens" },
	[WANT_SAMPLING_MAX_NEW_TOKENS] = { .path = "sampling_params.max_new_tokens" },
	[WANT_SAMPLING_MAX_TOKENS] = { .path = "sampling_params.max_tokens" },
	[WANT_NUM_PREDICT] = { .path = "options.num_predict" },
};

#undef STRUCTURE
#undef SESSION
#undef TYPE

/* The members that are a prompt or its space begin the table, the types follow, then adapters and texts, then
 * what is used or not, then the sessions. */
#define N_PROMPT_WANTS  WANT_MESSAGE_PART
#define N_SESSION_WANTS (WANT_MODEL - WANT_CACHE_KEY)

static const enum prompt_part_id part_of[N_PROMPT_WANTS] = {
	[WANT_CACHE_SALT] = PROMPT_CACHE_SALT,
	[WANT_EXTRA_KEY] = PROMPT_EXTRA_KEY,
	[WANT_ADAPTER] = PROMPT_ADAPTER,
	[WANT_LORA] = PROMPT_SCALES,
	[WANT_TOOLS] = PROMPT_TOOLS,
	[WANT_SYSTEM] = PROMPT_SYSTEM,
	[WANT_INSTRUCTIONS] = PROMPT_SYSTEM,
	[WANT_MESSAGES] = PROMPT_CONVERSATION,
	[WANT_PROMPT] = PROMPT_CONVERSATION,
	[WANT_INPUT] = PROMPT_CONVERSATION,
	[WANT_TEXT] = PROMPT_CONVERSATION,
	[WANT_INPUT_IDS] = PROMPT_CONVERSATION,
	[WANT_TOKEN_IDS] = PROMPT_CONVERSATION,
	[WANT_QUERY] = PROMPT_SYSTEM,
	[WANT_TEXT_1] = PROMPT_SYSTEM,
	[WANT_DOCUMENTS] = PROMPT_CONVERSATION,
	[WANT_TEXT_2] = PROMPT_CONVERSATION,
};

/* In the order of INSPECT_MEMBERS_NAMES. A conversation is named by its text or by its id. */
static const struct {
	const char *name;
	uint8_t want, other;
} session_members[INSPECT_MEMBERS] = {
	{ "prompt_cache_key", WANT_CACHE_KEY, WANT_CACHE_KEY },
	{ "conversation", WANT_CONVERSATION, WANT_CONVERSATION_ID },
	{ "previous_response_id", WANT_PREVIOUS_RESPONSE, WANT_PREVIOUS_RESPONSE },
	{ "session_params.session_id", WANT_SESSION_ID, WANT_SESSION_ID },
	{ "metadata.user_id", WANT_METADATA_USER, WANT_METADATA_USER },
	{ "user", WANT_USER, WANT_USER },
};

/* What the text of a type says. */
enum kind { KIND_OTHER, KIND_IMAGE, KIND_AUDIO, KIND_STRUCTURED, KIND_OFF };

static const struct {
	struct slice text;
	enum kind kind;
} kinds[] = {
	{ { "image_url", 9 }, KIND_IMAGE },
	{ { "input_image", 11 }, KIND_IMAGE },
	{ { "image", 5 }, KIND_IMAGE },
	{ { "image_embeds", 12 }, KIND_IMAGE },
	{ { "video_url", 9 }, KIND_IMAGE }, /* many images */
	{ { "input_audio", 11 }, KIND_AUDIO },
	{ { "audio_url", 9 }, KIND_AUDIO },
	{ { "json_object", 11 }, KIND_STRUCTURED },
	{ { "json_schema", 11 }, KIND_STRUCTURED },
	{ { "structural_tag", 14 }, KIND_STRUCTURED },
	{ { "none", 4 }, KIND_OFF },
	{ { "disabled", 8 }, KIND_OFF },
};

static struct scan_table table;

/* What there is to keep of a head. The buf begins with it, whatever is read of the body. */
struct facts {
	const struct inspect_rules *rules;
	uint64_t session;  /* of a header; 0: none brought one */
	uint64_t response; /* of the path; 0: it names none */
	struct own_fields own;
};

struct reading {
	struct facts facts;
	struct scan scan;
	struct prompt_chain prompt;
	const char *span; /* what of the open part is in this piece begins here */
	uint64_t sessions[N_SESSION_WANTS];
	uint64_t message_bytes, input_bytes; /* of their texts that have ended */
	uint8_t source[PROMPT_PARTS];        /* 1 + the want whose value is the part; 0: none */
	uint8_t source_before;               /* of the open part */
	uint8_t kind[WANT_ADAPTER_ITEM];     /* enum kind, of a type that was read last */
	uint8_t kinds[WANT_ADAPTER_ITEM];    /* bits of enum kind, of all parts of the last such array */
	uint8_t used;                        /* bits of WANT_STRUCTURE and those behind it, from bit 0 on */
	bool reads_pairs;   /* a rerank or a score: elsewhere such members mean other things */
	bool names_adapter; /* one of the array has a name */
	bool scales_lora;   /* one of llama.cpp's list has a scale that is not 0 */
	struct scan_value values[N_WANTS];
	char text[];
};

struct form_reading {
	struct facts facts;
	struct form form;
};

static struct facts *facts_of(const struct inspect *in) {
	return (struct facts *)in->buf->data;
}

static struct reading *reading_of(const struct inspect *in) {
	assert(in->body == INSPECT_JSON);
	return (struct reading *)in->buf->data;
}

static struct form *form_of(const struct inspect *in) {
	assert(in->body == INSPECT_FORM);
	return &((struct form_reading *)in->buf->data)->form;
}

/* ---- what passes -------------------------------------------------------------------- */

/* "text" as an object is not text: the Responses API has its format there. */
static bool is_prompt(unsigned id, enum scan_type type) {
	return type == SCAN_STRING || type == SCAN_ARRAY || (type == SCAN_OBJECT && id != WANT_TEXT);
}

static void prompt_begin(struct reading *r, unsigned id, const char *p) {
	enum prompt_part_id part = part_of[id];
	uint8_t *source = &r->source[part];
	if (id == WANT_ADAPTER)
		r->names_adapter = false;
	if (id == WANT_MESSAGES)
		r->message_bytes = r->kinds[WANT_MESSAGE_PART] = r->kinds[WANT_RESULT_PART] = 0;
	if (id == WANT_LORA)
		r->scales_lora = false;
	if (id == WANT_INPUT)
		r->input_bytes = r->kinds[WANT_INPUT_PART] = r->kinds[WANT_OUTPUT_PART] = 0;
	if ((id >= WANT_QUERY && !r->reads_pairs) || (*source && *source < id + 1))
		return;
	if (*source == id + 1) { /* the last of one name counts */
		prompt_chain_drop(&r->prompt, part);
		*source = 0;
	}
	r->source_before = *source;
	if (is_prompt(id, r->values[id].type)) {
		prompt_chain_begin(&r->prompt, part);
		if (id == WANT_MESSAGES)
			prompt_chain_is_text(&r->prompt);
		*source = (uint8_t)(id + 1);
		r->span = p;
	}
}

static void prompt_end(struct reading *r, unsigned id, const char *p) {
	struct slice rest = { r->span, (size_t)(p - r->span) };
	if (r->prompt.open && !prompt_chain_end(&r->prompt, rest))
		r->source[part_of[id]] = r->source_before;
}

static enum kind kind_of(const struct scan_value *v) {
	for (size_t i = 0; i < n_elems(kinds); i++)
		if (slice_eq(v->text, kinds[i].text))
			return kinds[i].kind;
	return KIND_OTHER;
}

static bool is_session(struct slice text) {
	return text.n > 0 && text.n <= SESSION_BYTES_MAX && scan_is_clean(text);
}

/* Never 0, which is none. */
static uint64_t hash_of(struct slice text) {
	uint64_t hash = XXH3_64bits(text.p, text.n);
	return hash ? hash : 1;
}

static void type_end(struct reading *r, unsigned id) {
	enum kind kind = kind_of(&r->values[id]);
	r->kind[id] = (uint8_t)kind;
	r->kinds[id] |= (uint8_t)(1u << kind);
}

static void text_end(struct reading *r, unsigned id) {
	const struct scan_value *v = &r->values[id];
	if (v->type == SCAN_STRING)
		*(id < WANT_INPUT_CONTENT ? &r->message_bytes : &r->input_bytes) += v->length;
}

/* Not null, false or empty. Where a list may stand for a value its items tell. */
static bool is_used(const struct scan_value *v) {
	switch (v->type) {
	case SCAN_NULL:
		return false;
	case SCAN_BOOL:
		return v->truth;
	case SCAN_STRING:
	case SCAN_ARRAY:
		return v->length > 2;
	default:
		return true;
	}
}

/* They have many names: one that says nothing takes nothing back. */
static void used_end(struct reading *r, unsigned id) {
	const struct scan_value *v = &r->values[id];
	bool has_items = v->type == SCAN_ARRAY && (id == WANT_IMAGE || id == WANT_AUDIO);
	r->used |= (uint8_t)((is_used(v) && !has_items) << (id - WANT_STRUCTURE));
}

/* What is no whole number is not 0. Without a scale an adapter is not used either. */
static void scale_end(struct reading *r) {
	const struct scan_value *v = &r->values[WANT_LORA_SCALE];
	r->scales_lora |= v->type == SCAN_NUMBER && (v->number || v->flaw);
}

static void on_tell(struct scan *s, unsigned id, const char *p) {
	struct reading *r = container_of(s, struct reading, scan);
	const struct scan_value *v = &r->values[id];
	if (id < N_PROMPT_WANTS) {
		if (s->open >> id & 1)
			prompt_begin(r, id, p);
		else
			prompt_end(r, id, p);
	} else if (id < WANT_ADAPTER_ITEM) {
		type_end(r, id);
	} else if (id == WANT_ADAPTER_ITEM) {
		r->names_adapter |= v->length > 2; /* with its quotes */
	} else if (id <= WANT_INPUT_TEXT) {
		if (s->found >> id & 1)
			text_end(r, id);
	} else if (id <= WANT_AUDIO_ITEM) {
		if (s->found >> id & 1)
			used_end(r, id);
	} else if (id == WANT_LORA_SCALE) {
		if (!(s->open >> id & 1))
			scale_end(r);
	} else {
		r->sessions[id - WANT_CACHE_KEY] = v->text.n ? hash_of(v->text) : 0;
	}
}

__attribute__((constructor)) static void inspect_table_init(void) {
	scan_table_init(&table, wants, N_WANTS, on_tell);
}

/* ---- the head ----------------------------------------------------------------------- */

/* A head that is being read: what is kept of it, and one of its fields. */
struct head_reading {
	struct facts facts;
	size_t n_better; /* headers of the rules that count more than the one that the session is from */
	struct slice name, value;
};

static void read_session(struct head_reading *h) {
	for (size_t i = 0; i < h->n_better; i++)
		if (slice_is(h->name, slice_of(h->facts.rules->headers[i])) && is_session(h->value)) {
			h->facts.session = hash_of(h->value);
			h->n_better = i;
		}
}

static enum cause read_head(struct head_reading *h, const struct head *head) {
	const struct inspect_rules *rules = h->facts.rules;
	enum cause cause = CAUSE_NONE;
	for (const struct field *f = head->fields; !cause && f < head->fields + head->n_fields; f++) {
		h->name = head_name(head, f);
		h->value = slice_trim(head_value(head, f));
		if (h->name.n <= INSPECT_HEADER_MAX && rules->header_lengths >> h->name.n & 1)
			read_session(h);
		if (own_field_is_ours(h->name))
			cause = own_field_read(&h->facts.own, h->name, h->value);
	}
	return cause;
}

/* ---- the body ----------------------------------------------------------------------- */

/* A media type, parameters aside. */
static struct slice bare_type(struct slice type) {
	const char *semicolon = type.n ? memchr(type.p, ';', type.n) : NULL;
	return semicolon ? slice_trim(slice_head(type, (size_t)(semicolon - type.p))) : type;
}

/* application/json or anything that ends in +json (RFC 6839). */
static bool is_json_type(struct slice type) {
	if (slice_is(type, SLICE("application/json")) || slice_is(type, SLICE("text/json")))
		return true;
	return type.n > 5 && slice_is(slice_skip(type, type.n - 5), SLICE("+json"));
}

bool inspect_is_json(struct slice content_type) {
	return is_json_type(bare_type(content_type));
}

/*
 * Where an engine is asked to make something, a request without a body is a mistake that
 * is told at once. Elsewhere it is usual: SDKs send a JSON type with every POST.
 */
static bool needs_body(struct slice path) {
	static const struct slice ends[] = { { "/completions", 12 }, { "/embeddings", 11 },
		{ "/messages", 9 }, { "/responses", 10 }, { "/count_tokens", 13 } };
	for (size_t i = 0; i < n_elems(ends); i++)
		if (path.n >= ends[i].n && slice_eq(slice_skip(path, path.n - ends[i].n), ends[i]))
			return true;
	return false;
}

/* What is asked of the Responses API with a body as that of a new one: these are no ids. */
static bool is_responses_verb(struct slice name) {
	return slice_eq(name, SLICE("compact")) || slice_eq(name, SLICE("input_tokens"));
}

/* Of /v1/responses/ID, and of what lies below it: the segment; empty: there is none. */
static struct slice segment_of_path(struct slice path) {
	static const struct slice prefix = { "/v1/responses/", 14 };
	if (!slice_has_prefix(path, prefix))
		return (struct slice){ NULL, 0 };
	struct slice id = slice_skip(path, prefix.n);
	const char *end = memchr(id.p, '/', id.n);
	return end ? slice_head(id, (size_t)(end - id.p)) : id;
}

/* How much of the body is read, and what is wrong with that. */
static enum cause choose_body(struct inspect *in, const struct head *head) {
	struct slice type = head_find(head, FIELD_CONTENT_TYPE), bare = bare_type(type);
	struct slice coding = head_find(head, FIELD_CONTENT_ENCODING);
	bool is_coded = coding.n && !slice_is(coding, SLICE("identity"));
	if (type.p && slice_is(bare, SLICE("multipart/form-data"))) {
		in->body = is_coded ? INSPECT_NOTHING : INSPECT_FORM;
		in->may_be_empty = in->capability == CAPABILITY_OTHER;
		return CAUSE_NONE;
	}
	if (type.p && !is_json_type(bare))
		return CAUSE_NONE;
	in->body = INSPECT_JSON;
	in->is_guess = !type.p;
	in->may_be_empty = !needs_body(head_path(head));
	return !in->is_guess && is_coded ? CAUSE_ENCODING : CAUSE_NONE;
}

static void json_begin(struct inspect *in, struct buf_pool *pool) {
	struct reading *r = reading_of(in);
	memset(r->sessions, 0, offsetof(struct reading, values) - offsetof(struct reading, sessions));
	r->reads_pairs = in->capability == CAPABILITY_RERANK || in->capability == CAPABILITY_SCORE;
	prompt_chain_init(&r->prompt, pool);
	scan_init(&r->scan, &table, r->values, r->text, table.text_bytes);
}

/* There is more than what struct inspect has room for. */
static bool has_facts(const struct facts *facts) {
	const struct own_fields *own = &facts->own;
	return facts->session || facts->response || own->origin_zone || own->accelerator ||
	    own->deadline_ms || own->wait_ms || own->given >> OWN_FIELD_WORKER_PRIORITY;
}

static enum cause body_begin(
    struct inspect *in, struct buf_pool *pool, const struct head *head, const struct facts *facts) {
	size_t n_bytes = in->body == INSPECT_JSON ? sizeof(struct reading) + table.text_bytes
	    : in->body == INSPECT_FORM            ? sizeof(struct form_reading)
						  : sizeof(struct facts);
	if (in->body == INSPECT_NOTHING && !has_facts(facts))
		return CAUSE_NONE;
	in->buf = buf_new(pool, n_bytes);
	if (!in->buf)
		return CAUSE_OVERLOADED;
	*facts_of(in) = *facts;
	if (in->body == INSPECT_JSON)
		json_begin(in, pool);
	else if (in->body == INSPECT_FORM && !form_init(form_of(in), head_find(head, FIELD_CONTENT_TYPE)))
		return CAUSE_FORM;
	return CAUSE_NONE;
}

/* What is known of the fields of ours without a buf. */
static void keep_own(struct inspect *in, const struct own_fields *own) {
	in->privacy = own->privacy;
	in->class = own->class;
	in->cost_tolerance = own->cost_tolerance;
	in->has_cost_tolerance = own->given >> OWN_FIELD_COST_TOLERANCE & 1;
}

enum cause inspect_init(
    struct inspect *in, const struct inspect_rules *rules, struct buf_pool *pool, const struct head *head) {
	*in = (struct inspect){ .capability = (uint8_t)capability_of(head_method(head), head_path(head)) };
	struct head_reading h = { .facts = { .rules = rules, .own = OWN_FIELDS_NONE },
		.n_better = rules->n_headers };
	struct slice segment = segment_of_path(head_path(head));
	in->may_name_response = in->capability == CAPABILITY_RESPONSES || is_responses_verb(segment);
	if (!in->may_name_response)
		h.facts.response = inspect_id_hash(segment);
	enum cause cause = read_head(&h, head);
	keep_own(in, &h.facts.own);
	if (!cause && head->method == METHOD_POST)
		cause = choose_body(in, head);
	if (!cause)
		cause = body_begin(in, pool, head, &h.facts);
	if (cause)
		inspect_deinit(in, pool);
	in->cause = (uint8_t)cause;
	return cause;
}

/* The body is none that can be read. */
static void body_end(struct inspect *in) {
	if (in->buf) {
		in->capability = (uint8_t)inspect_capability(in);
		in->named_response = inspect_names_response(in);
	}
	if (in->buf && in->body == INSPECT_JSON)
		prompt_chain_deinit(&reading_of(in)->prompt);
	in->body = INSPECT_NOTHING;
}

void inspect_deinit(struct inspect *in, struct buf_pool *pool) {
	body_end(in);
	buf_unref(pool, &in->buf);
}

static enum cause cause_of(enum scan_verdict verdict) {
	switch (verdict) {
	case SCAN_MORE:
	case SCAN_COMPLETE:
		return CAUSE_NONE;
	case SCAN_E_DUPLICATE:
		return CAUSE_DUPLICATE_MODEL;
	case SCAN_E_SYNTAX:
	case SCAN_E_DEPTH:
		break;
	}
	return CAUSE_INVALID_JSON;
}

static enum cause json_judge(struct inspect *in, enum scan_verdict verdict) {
	const struct reading *r = reading_of(in);
	in->cause = (uint8_t)cause_of(verdict);
	if (in->cause)
		return (enum cause)in->cause;
	const struct scan_value *model = scan_found(&r->scan, WANT_MODEL);
	if (model && model->type != SCAN_NULL && (model->type != SCAN_STRING || model->flaw != SCAN_SOUND))
		in->cause = CAUSE_MODEL_NAME;
	const struct scan_value *stream = scan_found(&r->scan, WANT_STREAM);
	in->is_streamed = stream && stream->type == SCAN_BOOL && stream->truth;
	return (enum cause)in->cause;
}

static enum cause json_feed(struct inspect *in, const char *p, size_t n) {
	struct reading *r = reading_of(in);
	r->span = p;
	enum cause cause = json_judge(in, scan_feed(&r->scan, p, n));
	if (!cause && r->prompt.open)
		prompt_chain_feed(&r->prompt, (struct slice){ r->span, (size_t)(p + n - r->span) });
	return cause;
}

static enum cause form_judge(struct inspect *in, enum form_verdict verdict) {
	const struct form *f = form_of(in);
	if (verdict == FORM_E_DUPLICATE)
		in->cause = CAUSE_DUPLICATE_MODEL;
	else if (verdict == FORM_E_SYNTAX)
		in->cause = CAUSE_FORM;
	else if (f->has_value && (!form_value(f).p || !scan_is_clean(form_value(f))))
		in->cause = CAUSE_MODEL_NAME;
	return (enum cause)in->cause;
}

enum cause inspect_feed(struct inspect *in, const char *p, size_t n) {
	for (size_t i = 0; in->is_guess && i < n; i++) {
		if (memchr(" \t\r\n", p[i], 4))
			continue;
		in->is_guess = false;
		if (p[i] != '{')
			body_end(in);
	}
	if (in->body == INSPECT_NOTHING)
		return CAUSE_NONE;
	if (in->cause)
		return (enum cause)in->cause;
	return in->body == INSPECT_FORM ? form_judge(in, form_feed(form_of(in), p, n)) : json_feed(in, p, n);
}

static bool is_blank(const struct inspect *in) {
	return in->body == INSPECT_FORM ? form_is_blank(form_of(in)) : scan_is_blank(&reading_of(in)->scan);
}

enum cause inspect_finish(struct inspect *in) {
	in->is_complete = true;
	if (in->is_guess || (in->may_be_empty && in->body != INSPECT_NOTHING && is_blank(in)))
		body_end(in);
	if (in->body == INSPECT_NOTHING)
		return CAUSE_NONE;
	if (in->cause)
		return (enum cause)in->cause;
	return in->body == INSPECT_FORM ? form_judge(in, form_finish(form_of(in)))
					: json_judge(in, scan_finish(&reading_of(in)->scan));
}

/* ---- what is known ------------------------------------------------------------------ */

bool inspect_has_all(const struct inspect *in) {
	return in->body == INSPECT_NOTHING || in->is_complete;
}

bool inspect_is_decided(const struct inspect *in) {
	if (inspect_has_all(in))
		return true;
	return in->body == INSPECT_FORM ? form_of(in)->has_value
					: scan_found(&reading_of(in)->scan, WANT_MODEL) != NULL;
}

struct slice inspect_model(const struct inspect *in) {
	if (in->body == INSPECT_NOTHING)
		return (struct slice){ NULL, 0 };
	if (in->body == INSPECT_FORM)
		return form_value(form_of(in));
	const struct scan_value *model = scan_found(&reading_of(in)->scan, WANT_MODEL);
	return model && model->type == SCAN_STRING ? model->text : (struct slice){ NULL, 0 };
}

/* The hash of the text of this member, 0 when it is none or not there. */
static uint64_t session_text(const struct reading *r, unsigned want) {
	const struct scan_value *v = scan_found(&r->scan, want);
	return v && v->type == SCAN_STRING ? r->sessions[want - WANT_CACHE_KEY] : 0;
}

static uint64_t session_member(const struct reading *r, unsigned member) {
	uint64_t hash = session_text(r, session_members[member].want);
	return hash ? hash : session_text(r, session_members[member].other);
}

bool inspect_has_session(const struct inspect *in) {
	if (inspect_has_all(in) || in->body == INSPECT_FORM)
		return true;
	const struct facts *f = facts_of(in);
	return f->session || !f->rules->n_members || session_member(reading_of(in), f->rules->members[0]);
}

uint64_t inspect_response(const struct inspect *in) {
	return in->buf ? facts_of(in)->response : 0;
}

/* The hash of the id of the stored response that it is about; 0: none so far. */
static uint64_t response_of(const struct inspect *in) {
	uint64_t hash = inspect_response(in);
	if (!hash && in->body == INSPECT_JSON && in->may_name_response)
		hash = session_text(reading_of(in), WANT_PREVIOUS_RESPONSE);
	return hash;
}

bool inspect_names_response(const struct inspect *in) {
	return in->named_response || response_of(in) != 0;
}

bool inspect_may_name_response(const struct inspect *in) {
	return in->may_name_response && !inspect_has_all(in) && !inspect_names_response(in);
}

static uint64_t salt_of(const struct inspect_salt *with) {
	return XXH3_64bits_withSeed(with->model.p, with->model.n, with->tenant);
}

static uint64_t salted(uint64_t session, const struct inspect_salt *with) {
	session = prompt_mix(session ^ salt_of(with));
	return session ? session : 1;
}

uint64_t inspect_session_of(struct slice text, const struct inspect_salt *with) {
	return is_session(text) ? salted(hash_of(text), with) : 0;
}

uint64_t inspect_id_hash(struct slice id) {
	return is_session(id) ? hash_of(id) : 0;
}

uint64_t inspect_response_key(uint64_t hash, uint64_t tenant) {
	return salted(hash, &(struct inspect_salt){ .tenant = tenant });
}

uint64_t inspect_session(const struct inspect *in, const struct inspect_salt *with) {
	if (!in->buf)
		return 0;
	const struct inspect_rules *rules = facts_of(in)->rules;
	uint64_t session = facts_of(in)->session;
	if (in->body == INSPECT_JSON)
		for (unsigned i = 0; !session && i < rules->n_members; i++)
			session = session_member(reading_of(in), rules->members[i]);
	return session ? salted(session, with) : 0;
}

/* There, and not null or false. */
static bool is_on(const struct reading *r, unsigned want) {
	const struct scan_value *v = scan_found(&r->scan, want);
	return v && v->type != SCAN_NULL && !(v->type == SCAN_BOOL && !v->truth);
}

/* 0 also when it is no number, or one that does not count; what is too large is as large as can be. */
static uint64_t number_of(const struct reading *r, unsigned want) {
	const struct scan_value *v = scan_found(&r->scan, want);
	return v && v->type == SCAN_NUMBER ? v->number : 0;
}

static bool is_kind(const struct reading *r, unsigned want, enum kind kind) {
	const struct scan_value *v = scan_found(&r->scan, want);
	return v && v->type == SCAN_STRING && r->kind[want] == kind;
}

static bool has_kind(const struct reading *r, enum kind kind) {
	return (r->kinds[WANT_MESSAGE_PART] | r->kinds[WANT_RESULT_PART] | r->kinds[WANT_INPUT_PART] |
		   r->kinds[WANT_OUTPUT_PART]) >>
	    kind &
	    1;
}

static bool has_used(const struct reading *r, unsigned want) {
	return r->used >> (want - WANT_STRUCTURE) & 1;
}

static bool is_structured(const struct reading *r) {
	return is_kind(r, WANT_RESPONSE_FORMAT, KIND_STRUCTURED) ||
	    is_kind(r, WANT_TEXT_FORMAT, KIND_STRUCTURED) || has_used(r, WANT_STRUCTURE);
}

static bool is_reasoning(const struct reading *r) {
	return is_on(r, WANT_REASONING) || (is_on(r, WANT_EFFORT) && !is_kind(r, WANT_EFFORT, KIND_OFF)) ||
	    (is_on(r, WANT_THINKING) && !is_kind(r, WANT_THINKING_TYPE, KIND_OFF));
}

/* Between its quotes there is something. */
static bool has_text(const struct reading *r, unsigned want) {
	const struct scan_value *v = scan_found(&r->scan, want);
	return v && v->type == SCAN_STRING && v->length > 2;
}

/* It has an item, whatever that is. */
static bool has_item(const struct reading *r, unsigned want) {
	return (r->scan.found | r->scan.open) >> want & 1;
}

static uint32_t features_of(const struct reading *r) {
	const bool has[FEATURES] = {
		[FEATURE_STREAM] = is_on(r, WANT_STREAM) && r->values[WANT_STREAM].type == SCAN_BOOL,
		[FEATURE_TOOLS] = has_item(r, WANT_TOOL) || has_item(r, WANT_FUNCTION),
		[FEATURE_STRUCTURED_OUTPUT] = is_structured(r),
		[FEATURE_IMAGE_INPUT] =
		    has_kind(r, KIND_IMAGE) || has_used(r, WANT_IMAGE) || has_used(r, WANT_IMAGE_ITEM),
		[FEATURE_AUDIO_INPUT] =
		    has_kind(r, KIND_AUDIO) || has_used(r, WANT_AUDIO) || has_used(r, WANT_AUDIO_ITEM),
		[FEATURE_LOGPROBS] = is_on(r, WANT_LOGPROBS),
		[FEATURE_N] = number_of(r, WANT_N) > 1 || number_of(r, WANT_BEST_OF) > 1 ||
		    number_of(r, WANT_SAMPLING_N) > 1,
		[FEATURE_REASONING] = is_reasoning(r),
		[FEATURE_ADAPTER] = has_text(r, WANT_ADAPTER) || r->names_adapter || r->scales_lora,
	};
	uint32_t mask = 0;
	for (unsigned i = 0; i < FEATURES; i++)
		mask |= (uint32_t)has[i] << i;
	return mask;
}

static uint32_t output_max_of(const struct reading *r) {
	for (unsigned want = WANT_MAX_COMPLETION_TOKENS; want < N_WANTS; want++)
		if (number_of(r, want))
			return (uint32_t)u64_min(number_of(r, want), UINT32_MAX);
	return 0;
}

enum capability inspect_capability(const struct inspect *in) {
	bool may_fill = in->capability == CAPABILITY_COMPLETION && in->body == INSPECT_JSON;
	return may_fill && has_text(reading_of(in), WANT_SUFFIX) ? CAPABILITY_INFILL
								 : (enum capability)in->capability;
}

static uint32_t tokens_of(uint64_t n_bytes, double tokens_per_byte) {
	double n = (double)n_bytes * tokens_per_byte;
	return n >= (double)UINT32_MAX ? UINT32_MAX : n > 0 ? (uint32_t)n : 0;
}

/* Of a text that has not ended yet, so far. */
static uint64_t open_bytes(const struct reading *r, unsigned want) {
	const struct scan_value *v = &r->values[want];
	bool is_open = r->scan.open >> want & 1 && v->type == SCAN_STRING;
	return is_open ? r->scan.offset - v->offset : 0;
}

/* What is text, whatever else is an image, or will be. Lists of a prompt's may be token ids. */
static uint64_t text_bytes(const struct reading *r) {
	uint64_t n = r->prompt.parts[PROMPT_TOOLS].bytes + r->prompt.parts[PROMPT_SYSTEM].bytes;
	unsigned source = r->source[PROMPT_CONVERSATION] - 1u;
	if (source == WANT_MESSAGES)
		return n + r->message_bytes + open_bytes(r, WANT_MESSAGE_CONTENT) +
		    open_bytes(r, WANT_MESSAGE_TEXT);
	if (source != WANT_PROMPT && source != WANT_INPUT)
		return n;
	if (r->values[source].type == SCAN_STRING)
		return n + r->prompt.parts[PROMPT_CONVERSATION].bytes;
	return n + r->input_bytes + open_bytes(r, WANT_INPUT_CONTENT) + open_bytes(r, WANT_INPUT_TEXT);
}

/* Token ids are counted, the rest is estimated by its bytes. */
static void measure_prompt(const struct prompt_chain *prompt, double tokens_per_byte, struct demand *out) {
	struct prompt_size size = prompt_chain_size(prompt);
	uint64_t n_tokens = size.n_ids + tokens_of(size.bytes - size.id_bytes, tokens_per_byte);
	out->prompt_bytes = size.bytes;
	out->prompt_tokens = (uint32_t)u64_min(n_tokens, UINT32_MAX);
	out->is_counted = size.n_ids > 0;
	out->is_batch = size.is_batch || out->capability == CAPABILITY_RERANK;
}

struct inspect_wishes inspect_wishes(const struct inspect *in) {
	return (struct inspect_wishes){ .class = in->class,
		.wait_ms = in->buf ? facts_of(in)->own.wait_ms : 0,
		.deadline_ms = in->buf ? facts_of(in)->own.deadline_ms : 0 };
}

void inspect_demand(
    const struct inspect *in, const struct inspect_salt *with, uint64_t *keys, struct demand *out) {
	*out = (struct demand){
		.capability = inspect_capability(in),
		.keys = keys,
		.session = inspect_session(in, with),
		.privacy = (enum privacy)in->privacy,
		.origin_zone = in->buf ? facts_of(in)->own.origin_zone : 0,
		.accelerator = in->buf ? facts_of(in)->own.accelerator : 0,
		.priority_min = in->buf ? facts_of(in)->own.priority_min : 0,
		.cost_max = in->buf ? facts_of(in)->own.cost_max : 0,
		.has_cost_max = in->buf && facts_of(in)->own.given >> OWN_FIELD_MAX_COST & 1,
		.cost_tolerance = in->cost_tolerance,
		.has_cost_tolerance = in->has_cost_tolerance,
		.deadline_ms = in->buf ? facts_of(in)->own.deadline_ms : 0,
	};
	if (response_of(in))
		out->response = inspect_response_key(response_of(in), with->tenant);
	if (in->body != INSPECT_JSON)
		return;
	const struct reading *r = reading_of(in);
	out->features = features_of(r);
	out->output_max = output_max_of(r);
	out->is_prompt_open = !in->is_complete;
	measure_prompt(&r->prompt, with->tokens_per_byte, out);
	out->text_tokens = tokens_of(text_bytes(r), with->tokens_per_byte);
	out->n_keys = prompt_chain_keys(&r->prompt, salt_of(with), keys);
	out->whole = in->is_complete ? prompt_chain_whole(&r->prompt, salt_of(with)) : 0;
}

/* ---- the rules ---------------------------------------------------------------------- */

void inspect_rules_init(struct inspect_rules *rules, const char *const *headers, size_t n_headers) {
	*rules = (struct inspect_rules){ .headers = headers, .n_headers = n_headers };
	for (size_t i = 0; i < n_headers; i++) {
		assert(strlen(headers[i]) <= INSPECT_HEADER_MAX);
		rules->header_lengths |= UINT64_C(1) << strlen(headers[i]);
	}
}

bool inspect_rules_add(struct inspect_rules *rules, struct slice member) {
	uint8_t i = 0;
	while (i < INSPECT_MEMBERS && !slice_eq(member, slice_of(session_members[i].name)))
		i++;
	if (i == INSPECT_MEMBERS || memchr(rules->members, i, rules->n_members))
		return false;
	rules->members[rules->n_members++] = i;
	return true;
}
