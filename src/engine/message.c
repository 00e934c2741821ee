#include "engine/message.h"

static void add_string(struct prompt *p, const json_t *string) {
	prompt_add(p, (struct slice){ json_string_value(string), json_string_length(string) });
}

/* The URL or the data of an image, wherever an API puts it; NULL: the part is no image. */
static const json_t *image_source(const json_t *part) {
	const json_t *image = json_object_get(part, "image_url"); /* chat and responses */
	if (json_is_string(image))
		return image;
	if (image)
		return json_object_get(image, "url");

	const char *type = json_string_value(json_object_get(part, "type"));
	if (!type || strcmp(type, "image") != 0)
		return NULL;
	const json_t *source = json_object_get(part, "source"); /* Anthropic */
	const json_t *data = json_object_get(source, "data");
	return data ? data : json_object_get(source, "url");
}

static void add_part(struct prompt *p, const json_t *part) {
	const json_t *text = json_object_get(part, "text");
	const json_t *image = image_source(part);
	if (json_is_string(text))
		add_string(p, text);
	else if (json_is_string(image))
		prompt_add_image(p, (struct slice){ json_string_value(image), json_string_length(image) });
	else
		message_add_json(p, part);
}

bool message_add_content(struct prompt *p, const json_t *content) {
	size_t i;
	json_t *part;

	if (json_is_string(content))
		add_string(p, content);
	else if (content && !json_is_array(content) && !json_is_null(content))
		return false;
	json_array_foreach(content, i, part) {
		if (json_is_string(part))
			add_string(p, part);
		else if (json_is_object(part))
			add_part(p, part);
		else
			return false;
	}
	return true;
}

bool message_add(struct prompt *p, const char *role, const json_t *content) {
	prompt_add(p, SLICE("<|"));
	prompt_add(p, slice_of(role));
	prompt_add(p, SLICE("|>\n"));
	if (!message_add_content(p, content))
		return false;
	prompt_add(p, SLICE("\n"));
	return true;
}

void message_end(struct prompt *p) {
	prompt_add(p, SLICE("<|assistant|>\n"));
}

static int on_json_part(const char *part, size_t n, void *data) {
	prompt_add(data, (struct slice){ part, n });
	return 0;
}

void message_add_json(struct prompt *p, const json_t *value) {
	if (value && !json_is_null(value))
		json_dump_callback(value, on_json_part, p, JSON_COMPACT | JSON_ENCODE_ANY);
}

void message_text(const json_t *content, struct bytes *text) {
	size_t i;
	json_t *part;

	if (json_is_string(content))
		bytes_add(text, (struct slice){ json_string_value(content), json_string_length(content) });
	json_array_foreach(content, i, part) {
		const json_t *string = json_is_string(part) ? part : json_object_get(part, "text");
		if (json_is_string(string))
			bytes_add(
			    text, (struct slice){ json_string_value(string), json_string_length(string) });
	}
}

const json_t *message_last_of_user(const json_t *messages) {
	for (size_t i = json_array_size(messages); i-- > 0;) {
		const json_t *message = json_array_get(messages, i);
		const char *role = json_string_value(json_object_get(message, "role"));
		if (role && strcmp(role, "user") == 0)
			return json_object_get(message, "content");
	}
	return NULL;
}
