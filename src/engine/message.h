/*
 * message: how the messages of any API become the text of a prompt.
 *
 * Stands for a chat template: "<|role|>\n", the content, "\n" for each message, and
 * "<|assistant|>\n" at the end. The same conversation gives the same bytes through
 * every API, and a longer one begins with the bytes of a shorter one. Pure.
 */
#pragma once

#include <jansson.h>

#include "engine/bytes.h"
#include "engine/prompt.h"

/*
 * Content: a string, an array of parts, or null. Text is added as it is, an image as an
 * image, any other part as its JSON. False: it is something else.
 */
must_use bool message_add_content(struct prompt *p, const json_t *content);

/* One message: role and content. False: `content` has no such form. */
must_use bool message_add(struct prompt *p, const char *role, const json_t *content);

/* The line that makes the model speak. */
void message_end(struct prompt *p);

/* Tools and other things that stand before the messages: their JSON. NULL and null add nothing. */
void message_add_json(struct prompt *p, const json_t *value);

/* The text of a content, parts joined, images left out. */
void message_text(const json_t *content, struct bytes *text);

/* The content of the last message of the user; NULL if there is none. Borrowed. */
const json_t *message_last_of_user(const json_t *messages);
