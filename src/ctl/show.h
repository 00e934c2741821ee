/*
 * show: the admin port's answers as text for people: aligned tables, reasons in words.
 *
 * What an answer lacks is shown as "-"; bytes that would move a terminal as "?". The words
 * of a reason and of a code are fixed; a code that is not known is shown as it is.
 */
#pragma once

#include <jansson.h>
#include <stdio.h>

void show_explanation(const json_t *answer, FILE *out);
void show_decisions(const json_t *answer, FILE *out);
void show_decision(const json_t *decision, FILE *out);
void show_breakers(const json_t *answer, FILE *out);
void show_instances(const json_t *answer, FILE *out);
void show_upgrade(const json_t *answer, FILE *out);
void show_reload(const json_t *answer, FILE *out);

/* Why a configuration was refused, a line each; of another refusal nothing. */
void show_mistakes(const json_t *answer, FILE *out);
