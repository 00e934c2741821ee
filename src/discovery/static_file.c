#include "discovery/static_file.h"

/* The list of elements, in whichever shape it comes. NULL: in none. */
static const json_t *find_list(const json_t *root) {
	const json_t *inner = json_object_get(root, "static_services");
	const json_t *list = json_is_array(root) ? root : json_object_get(inner ? inner : root, "services");

	return json_is_array(list) ? list : NULL;
}

/* What a registry's record may have wrong and a file may not; NULL: nothing. */
static const char *judge(const json_t *element) {
	const json_t *weight = json_object_get(element, "weight");
	const json_t *metadata = json_object_get(element, "metadata");
	double n = json_number_value(weight);

	if (weight && (!json_is_number(weight) || n < 0 || n * INSTANCE_WEIGHT_ONE > FLEET_WEIGHT_MAX))
		return "weight is not a number from 0 to 1000000";
	if (metadata && !json_is_object(metadata))
		return "metadata is not an object";
	if (json_object_get(metadata, "models") && !json_is_array(json_object_get(metadata, "models")))
		return "metadata.models is not a list";
	return NULL;
}

static bool is_there(const struct static_file *file, struct slice name) {
	for (size_t i = 0; i < file->n; i++)
		if (slice_eq(file->services[i]->spec.instance.name, name))
			return true;
	return false;
}

/* Takes one element. NULL, or what is wrong with it. */
static const char *add(struct static_file *file, const json_t *element) {
	const char *why = judge(element);
	struct service *s;

	if (why || service_read(element, &s, &why))
		return why;
	if (is_there(file, s->spec.instance.name)) {
		service_free(&s);
		return "its name is there twice";
	}
	file->services[file->n++] = s;
	return NULL;
}

static int fail(struct static_file *file, json_t *root) {
	json_decref(root);
	static_file_deinit(file);
	return -1;
}

int static_file_read(struct static_file *file, const char *path, char why[static STATIC_FILE_WHY_BYTES]) {
	json_error_t error;
	json_t *root = json_load_file(path, 0, &error);
	const json_t *list = find_list(root);

	*file = (struct static_file){ .n = 0 };
	if (!root && error.line > 0) {
		snprintf(why, STATIC_FILE_WHY_BYTES, "%.200s:%d: %s", path, error.line, error.text);
		return -1;
	}
	if (!root) /* the text names the file */
		snprintf(why, STATIC_FILE_WHY_BYTES, "%s", error.text);
	else if (!list)
		snprintf(why, STATIC_FILE_WHY_BYTES, "%.200s: expected a list of services", path);
	if (!list)
		return fail(file, root);
	file->services = calloc(json_array_size(list) + 1, sizeof(struct service *));
	for (size_t i = 0; i < json_array_size(list); i++) {
		const char *wrong = add(file, json_array_get(list, i));
		if (wrong) {
			snprintf(why, STATIC_FILE_WHY_BYTES, "%.200s: services[%zu]: %s", path, i, wrong);
			return fail(file, root);
		}
	}
	json_decref(root);
	return 0;
}

void static_file_deinit(struct static_file *file) {
	for (size_t i = 0; i < file->n; i++)
		service_free(&file->services[i]);
	free(file->services);
	*file = (struct static_file){ .n = 0 };
}
