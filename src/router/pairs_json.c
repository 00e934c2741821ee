#include "router/pairs_json.h"

json_t *text_json(struct slice text) {
	json_t *json = json_stringn(text.p ? text.p : "", text.n);
	return json ? json : json_string("");
}

json_t *pairs_json_keys(struct pairs pairs) {
	json_t *array = json_array();
	for (uint32_t i = 0; i < pairs.n; i++)
		json_array_append_new(array, text_json(pairs.items[i].key));
	return array;
}

json_t *pairs_json(struct pairs pairs) {
	json_t *object = json_object();
	for (uint32_t i = 0; i < pairs.n; i++)
		json_object_setn_new(
		    object, pairs.items[i].key.p, pairs.items[i].key.n, text_json(pairs.items[i].value));
	return object;
}
