/*
 * A machine with one state for each place in a form, one byte at a time in headers, and at
 * the speed of memchr() in what stands between them. A delimiter begins with the only CR it
 * has, so a match that fails can only begin again at the byte where it failed.
 */
#include "router/form.h"

enum state {
	IN_PREAMBLE,
	AFTER_DELIMITER,
	IN_PADDING,
	AT_DELIMITER_LF,
	AT_CLOSE,
	AT_FIELD,
	IN_FIELD_NAME,
	IN_FIELD_VALUE,
	IN_DISPOSITION_TYPE,
	AT_PARAMETER,
	IN_PARAMETER_NAME,
	AT_PARAMETER_VALUE,
	IN_QUOTED,
	IN_QUOTED_PAIR,
	IN_TOKEN,
	AFTER_PARAMETER,
	AT_FIELD_LF,
	AT_HEADERS_LF,
	IN_DATA,
	IN_EPILOGUE,
	AT_REFUSAL,
};

/* ---- the boundary ------------------------------------------------------------------ */

/* The next parameter of a field's value, which loses it. False: there is none, or it is not well-formed. */
static bool take_parameter(struct slice *rest, struct slice *name, struct slice *value) {
	*rest = slice_trim(*rest);
	if (!rest->n || rest->p[0] != ';')
		return false;
	*rest = slice_trim(slice_skip(*rest, 1));
	const char *equals = memchr(rest->p, '=', rest->n);
	if (!equals)
		return false;
	*name = slice_head(*rest, (size_t)(equals - rest->p));
	*rest = slice_skip(*rest, name->n + 1);
	bool is_quoted = rest->n && rest->p[0] == '"';
	if (is_quoted)
		*rest = slice_skip(*rest, 1);
	size_t n = 0;
	while (n < rest->n && rest->p[n] != (is_quoted ? '"' : ';')) {
		if (rest->p[n] == '\\') /* no boundary needs one */
			return false;
		n++;
	}
	if (is_quoted && n == rest->n)
		return false;
	*value = is_quoted ? slice_head(*rest, n) : slice_trim(slice_head(*rest, n));
	*rest = slice_skip(*rest, n + is_quoted);
	return true;
}

/* RFC 2046 section 5.1.1. */
static bool is_boundary(struct slice text) {
	static const char others[] = "'()+_,-./:=? ";
	for (size_t i = 0; i < text.n; i++) {
		char c = ascii_lower(text.p[i]);
		if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') &&
		    !memchr(others, c, sizeof(others) - 1))
			return false;
	}
	return text.n > 0 && text.n <= FORM_BOUNDARY_MAX && text.p[text.n - 1] != ' ';
}

bool form_init(struct form *f, struct slice type) {
	struct slice name, value, boundary = { NULL, 0 };
	const char *semicolon = memchr(type.p, ';', type.n);
	struct slice rest = slice_skip(type, semicolon ? (size_t)(semicolon - type.p) : type.n);
	memset(f, 0, offsetof(struct form, value));
	while (take_parameter(&rest, &name, &value)) {
		if (!slice_is(name, SLICE("boundary")))
			continue;
		if (boundary.p)
			return false;
		boundary = value;
	}
	if (slice_trim(rest).n || !boundary.p || !is_boundary(boundary))
		return false;
	memcpy(f->delimiter, "\r\n--", 4);
	memcpy(f->delimiter + 4, boundary.p, boundary.n);
	f->delimiter_n = (uint8_t)(4 + boundary.n);
	f->n_matched = 2; /* the first line has none before it */
	f->state = IN_PREAMBLE;
	return true;
}

/* ---- words ------------------------------------------------------------------------- */

static void word_keep(struct form *f, char c) {
	if (f->n_word < sizeof(f->word))
		f->word[f->n_word] = c;
	if (f->n_word <= sizeof(f->word))
		f->n_word++;
}

static bool word_is(const struct form *f, struct slice text) {
	return f->n_word == text.n && memcmp(f->word, text.p, text.n) == 0;
}

/* A token of RFC 9110 section 5.6.2. */
static bool is_token(char c) {
	static const char others[] = "!#$%&'*+-.^_`|~";
	char lower = ascii_lower(c);
	return (lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9') ||
	    memchr(others, c, sizeof(others) - 1);
}

static enum state refuse(struct form *f, enum form_verdict why) {
	f->verdict = (uint8_t)why;
	return AT_REFUSAL;
}

static enum state word_begin(struct form *f, enum state state, char c) {
	if (!is_token(c))
		return refuse(f, FORM_E_SYNTAX);
	f->n_word = 0;
	word_keep(f, ascii_lower(c));
	return state;
}

/* ---- the headers of a part --------------------------------------------------------- */

static enum state field_name_end(struct form *f) {
	if (!word_is(f, SLICE("content-disposition")))
		return IN_FIELD_VALUE;
	if (f->has_disposition)
		return refuse(f, FORM_E_SYNTAX);
	f->has_disposition = true;
	return IN_DISPOSITION_TYPE;
}

static enum state parameter_name_end(struct form *f) {
	bool is_name = word_is(f, SLICE("name"));
	if (is_name && f->has_name)
		return refuse(f, FORM_E_SYNTAX);
	f->has_name |= is_name;
	f->reads_name = is_name;
	f->n_word = 0;
	return AT_PARAMETER_VALUE;
}

static enum state parameter_end(struct form *f, enum state state) {
	if (f->reads_name && word_is(f, SLICE("model"))) {
		if (f->has_value)
			return refuse(f, FORM_E_DUPLICATE);
		f->is_model = true;
	}
	return state;
}

static enum state quoted_more(struct form *f, char c) {
	if (c == '"')
		return parameter_end(f, AFTER_PARAMETER);
	if (c == '\\')
		return IN_QUOTED_PAIR;
	word_keep(f, c);
	return IN_QUOTED;
}

/* Between parameters, where a field may end. */
static enum state parameter_more(struct form *f, char c) {
	if (c == ';')
		return AT_PARAMETER;
	if (c == '\r')
		return AT_FIELD_LF;
	return c == ' ' || c == '\t' ? AFTER_PARAMETER : refuse(f, FORM_E_SYNTAX);
}

static enum state token_more(struct form *f, char c) {
	if (!is_token(c))
		return parameter_end(f, AFTER_PARAMETER) == AFTER_PARAMETER ? parameter_more(f, c)
									    : AT_REFUSAL;
	word_keep(f, c);
	return IN_TOKEN;
}

static enum state disposition_more(struct form *f, char c) {
	switch ((enum state)f->state) {
	case IN_DISPOSITION_TYPE:
		return c == ';' ? AT_PARAMETER : c == '\r' ? AT_FIELD_LF : IN_DISPOSITION_TYPE;
	case AT_PARAMETER:
		if (c == ' ' || c == '\t' || c == ';')
			return AT_PARAMETER;
		return c == '\r' ? AT_FIELD_LF : word_begin(f, IN_PARAMETER_NAME, c);
	case IN_PARAMETER_NAME:
		if (c == '=')
			return parameter_name_end(f);
		word_keep(f, ascii_lower(c));
		return is_token(c) ? IN_PARAMETER_NAME : refuse(f, FORM_E_SYNTAX);
	case AT_PARAMETER_VALUE:
		return c == '"' ? IN_QUOTED : token_more(f, c);
	case IN_QUOTED:
		return quoted_more(f, c);
	case IN_QUOTED_PAIR:
		word_keep(f, c);
		return IN_QUOTED;
	case IN_TOKEN:
		return token_more(f, c);
	default:
		return parameter_more(f, c);
	}
}

static enum state field_more(struct form *f, char c) {
	switch ((enum state)f->state) {
	case AT_FIELD:
		return c == '\r' ? AT_HEADERS_LF : word_begin(f, IN_FIELD_NAME, c);
	case IN_FIELD_NAME:
		if (c == ':')
			return field_name_end(f);
		word_keep(f, ascii_lower(c));
		return is_token(c) ? IN_FIELD_NAME : refuse(f, FORM_E_SYNTAX);
	case IN_FIELD_VALUE:
		return c == '\r' ? AT_FIELD_LF : IN_FIELD_VALUE;
	case AT_FIELD_LF:
		return c == '\n' ? AT_FIELD : refuse(f, FORM_E_SYNTAX);
	case AT_HEADERS_LF:
		return c == '\n' ? IN_DATA : refuse(f, FORM_E_SYNTAX);
	default:
		return disposition_more(f, c);
	}
}

static enum state header_more(struct form *f, char c) {
	bool may_be_lf = f->state == AT_FIELD_LF || f->state == AT_HEADERS_LF;
	if (++f->header_bytes > FORM_HEADERS_MAX || c == '\0' || (c == '\n' && !may_be_lf))
		return refuse(f, FORM_E_SYNTAX);
	if (c == '\r' && (f->state == IN_QUOTED || f->state == IN_QUOTED_PAIR))
		return refuse(f, FORM_E_SYNTAX);
	return field_more(f, c);
}

/* ---- what stands between headers ----------------------------------------------------- */

static void part_begin(struct form *f) {
	f->header_bytes = 0;
	f->has_disposition = f->has_name = f->is_model = false;
}

static void value_keep(struct form *f, const char *p, size_t n) {
	if (!f->is_model || f->value_n > FORM_VALUE_MAX)
		return;
	if (n > FORM_VALUE_MAX - f->value_n) {
		f->value_n = FORM_VALUE_MAX + 1;
		return;
	}
	memcpy(f->value + f->value_n, p, n);
	f->value_n = (uint16_t)(f->value_n + n);
}

/* Passes data, or the preamble, up to the end of a delimiter. */
static const char *data_more(struct form *f, const char *p, const char *end) {
	while (p < end && f->n_matched < f->delimiter_n) {
		if (f->n_matched == 0) {
			const char *cr = memchr(p, '\r', (size_t)(end - p));
			const char *stop = cr ? cr : end;
			value_keep(f, p, (size_t)(stop - p));
			p = stop;
		}
		if (p < end && *p == f->delimiter[f->n_matched]) {
			f->n_matched++;
			p++;
		} else if (p < end) {
			value_keep(f, f->delimiter, f->n_matched);
			f->n_matched = 0;
		}
	}
	if (f->n_matched == f->delimiter_n) {
		f->has_value |= f->is_model;
		f->n_matched = 0;
		f->state = AFTER_DELIMITER;
		part_begin(f);
	}
	return p;
}

static enum state delimiter_more(struct form *f, char c) {
	if (f->state == AT_DELIMITER_LF)
		return c == '\n' ? AT_FIELD : refuse(f, FORM_E_SYNTAX);
	if (f->state == AT_CLOSE)
		return c == '-' ? IN_EPILOGUE : refuse(f, FORM_E_SYNTAX);
	if (f->state == AFTER_DELIMITER && c == '-')
		return AT_CLOSE;
	if (c == ' ' || c == '\t')
		return IN_PADDING;
	return c == '\r' ? AT_DELIMITER_LF : refuse(f, FORM_E_SYNTAX);
}

enum form_verdict form_feed(struct form *f, const char *p, size_t n) {
	const char *end = p + n;
	const char *begin = p;
	while (p < end && f->state < IN_EPILOGUE) {
		bool is_header = f->state > AT_CLOSE && f->state < IN_DATA;
		if (f->state == IN_DATA || f->state == IN_PREAMBLE)
			p = data_more(f, p, end);
		else if (f->state <= AT_CLOSE)
			f->state = (uint8_t)delimiter_more(f, *p++);
		else
			f->state = (uint8_t)header_more(f, *p++);
		if (f->state == IN_DATA && is_header && f->is_model)
			f->value_at = f->n_fed + (uint64_t)(p - begin);
	}
	f->n_fed += n;
	if (f->state == IN_EPILOGUE)
		f->verdict = FORM_COMPLETE;
	return (enum form_verdict)f->verdict;
}

enum form_verdict form_finish(struct form *f) {
	if (f->verdict == FORM_MORE)
		f->state = (uint8_t)refuse(f, FORM_E_SYNTAX);
	return (enum form_verdict)f->verdict;
}

bool form_is_blank(const struct form *f) {
	return f->state == IN_PREAMBLE && f->n_matched == 2;
}
