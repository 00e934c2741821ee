/*
 * trace_file: traces that were recorded, read from a file. The format is known by the
 * content, not by the name.
 *
 * Mooncake (FAST'25), a JSON object a line: "timestamp" in ms, "input_length" and
 * "output_length" in tokens, "hash_ids": an id for each 512 tokens of the prompt.
 *
 * Azure's LLM inference dataset, CSV under the head TIMESTAMP,ContextTokens,GeneratedTokens;
 * times as 2023-11-16 18:17:03.9799600. Nothing is known of prefixes.
 *
 * Headrace's own decision log, a JSON object a line, whose members here are
 *	ts_ns           arrival, an integer, nanoseconds from any start
 *	prompt_tokens   an integer
 *	output_tokens   an integer
 *	blocks          a list of strings of 1 to 16 hexadecimal digits: the chained keys of the
 *	                prompt's leading blocks; absent or empty when nothing is known
 *	session         such a string: the hash of what requests that belong together share; absent: none
 * Others are ignored: what else a decision record says is not the demand, but the answer.
 */
#pragma once

#include "sim/trace.h"

#define TRACE_FILE_MESSAGE_BYTES 512

/*
 * Adds the file's rows. Empty lines are skipped; a file without rows is a mistake. On a mistake
 * returns false, `message` says where and what ("FILE:12: ..."), and the trace has some of the rows.
 */
must_use bool trace_file_read(
    struct trace *trace, const char *path, char message[static TRACE_FILE_MESSAGE_BYTES]);
