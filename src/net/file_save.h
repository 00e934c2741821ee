/*
 * file_save: writes a small file whole or not at all, without blocking the loop.
 *
 * The text is written to FILE.new, flushed to the disk, put in FILE's place, and the folder
 * flushed: a power cut leaves the old text or the new one. Who writes has FILE.new locked
 * (flock): of processes that save at once, as an upgrade's two may, one waits for the other,
 * and the later one's text holds, whole. One that is killed meanwhile leaves FILE.new, which
 * the next save uses. The work is done on libuv's thread pool, one save at a time; the
 * callback runs on the loop's thread with 0 or a negative errno.
 */
#pragma once

#include "net/loop.h"

struct file_save;
typedef void (*file_save_fn)(void *context, int error);

/* On the heap: a save that runs cannot be taken back. The file's folder must exist. */
must_use struct file_save *file_save_new(const char *path, file_save_fn on_done, void *context);

/* One that runs is finished, without a callback. */
void file_save_free(struct file_save **s);

bool file_save_is_busy(const struct file_save *s);

/* Takes the text (malloc). Not while it is busy. */
void file_save_start(struct file_save *s, struct loop *loop, char *text, size_t n);

/* The same, at once and on this thread: for the end of a program, and for tests. 0 or a negative errno. */
must_use int file_save_now(const char *path, struct slice text);
