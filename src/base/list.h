/*
 * list: intrusive, circular, doubly linked. The head is a list that is nobody's
 * member. A link that is in no list points at itself, so that list_remove() may be
 * called twice and list_is_linked() costs one compare.
 */
#pragma once

#include "base/defs.h"

struct list {
	struct list *next, *prev;
};

#define LIST_INIT(head)                                                                                      \
	{ &(head), &(head) }

#define list_each(it, head) for (struct list *it = (head)->next; it != (head); it = it->next)
#define list_each_safe(it, head)                                                                             \
	for (struct list *it = (head)->next, *it##_next = it->next; it != (head);                            \
	     it = it##_next, it##_next = it->next)

static inline void list_init(struct list *l) {
	l->next = l->prev = l;
}
static inline bool list_is_empty(const struct list *head) {
	return head->next == head;
}
static inline bool list_is_linked(const struct list *l) {
	return l->next != l;
}

static inline void list_remove(struct list *l) {
	l->prev->next = l->next;
	l->next->prev = l->prev;
	list_init(l);
}

static inline void list_insert_after(struct list *at, struct list *l) {
	assert(!list_is_linked(l));
	l->prev = at;
	l->next = at->next;
	at->next->prev = l;
	at->next = l;
}

static inline void list_push(struct list *head, struct list *l) {
	list_insert_after(head->prev, l);
}
static inline void list_push_front(struct list *head, struct list *l) {
	list_insert_after(head, l);
}

static inline struct list *list_first(const struct list *head) {
	return list_is_empty(head) ? NULL : head->next;
}

/* All links of `from` go to the end of `to`; `from` is empty afterwards. */
static inline void list_splice(struct list *to, struct list *from) {
	if (list_is_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	list_init(from);
}
