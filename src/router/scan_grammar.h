/*
 * scan_grammar: RFC 8259 as tables. Private to scan.
 *
 * Every byte has a class. A table says what to do with a byte of a class in a
 * state: between tokens scan_grammar, in numbers scan_number_grammar.
 */
#pragma once

#include "base/defs.h"

enum byte_class {
	C_OTHER,
	C_SPACE,
	C_QUOTE,
	C_OBJECT,     /* { */
	C_OBJECT_END, /* } */
	C_ARRAY,      /* [ */
	C_ARRAY_END,  /* ] */
	C_COMMA,
	C_COLON,
	C_MINUS,
	C_PLUS,
	C_POINT,
	C_ZERO,
	C_DIGIT,
	C_EXPONENT, /* e E */
	C_LETTER,   /* t f n, which begin a literal */
	N_CLASSES,
};

enum state {
	AT_VALUE,
	AT_FIRST_ITEM, /* behind [ */
	AT_FIRST_KEY,  /* behind { */
	AT_KEY,
	AT_COLON,
	AFTER_ITEM,   /* behind a value in an array */
	AFTER_MEMBER, /* behind a value in an object */
	AT_END,
	IN_KEY,
	IN_STRING,
	IN_NUMBER,
	IN_LITERAL,
	N_STATES,
};

enum action {
	REFUSE,
	PASS,
	BEGIN_KEY,
	BEGIN_STRING,
	BEGIN_OBJECT,
	BEGIN_ARRAY,
	BEGIN_NUMBER,
	BEGIN_LITERAL,
	END_CONTAINER,
	GO_VALUE,
	GO_KEY,
	MORE_STRING,
	MORE_NUMBER,
	MORE_LITERAL,
};

enum number_state {
	NUMBER_END,
	AT_NUMBER,
	AT_INTEGER, /* behind - */
	IN_ZERO,
	IN_INTEGER,
	AT_FRACTION, /* behind . */
	IN_FRACTION,
	AT_EXPONENT, /* behind e */
	AT_POWER,    /* behind e+ or e- */
	IN_POWER,
	N_NUMBER_STATES,
};

extern const uint8_t scan_class[256];                                 /* enum byte_class */
extern const uint8_t scan_grammar[N_STATES][N_CLASSES];               /* enum action */
extern const uint8_t scan_number_grammar[N_NUMBER_STATES][N_CLASSES]; /* the next state */

/* What the letter behind a backslash stands for; 'u' for itself, 0 for letters that are no escape. */
extern const uint8_t scan_escape[256];

/* 16 + the value of a hexadecimal digit; 0 for all other bytes. */
extern const uint8_t scan_hex[256];

static inline bool scan_number_may_end(uint8_t state) {
	return state == IN_ZERO || state == IN_INTEGER || state == IN_FRACTION || state == IN_POWER;
}
