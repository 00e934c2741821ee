/*
 * scan_grammar: the tables. What is not written is 0: C_OTHER, REFUSE, NUMBER_END.
 */
#include "router/scan_grammar.h"

/* The formatter would give every entry a line of its own. */
/* clang-format off */

const uint8_t scan_class[256] = {
	[' '] = C_SPACE, ['\t'] = C_SPACE, ['\n'] = C_SPACE, ['\r'] = C_SPACE,
	['{'] = C_OBJECT, ['}'] = C_OBJECT_END, ['['] = C_ARRAY, [']'] = C_ARRAY_END,
	['"'] = C_QUOTE, [','] = C_COMMA, [':'] = C_COLON,
	['0'] = C_ZERO, ['1' ... '9'] = C_DIGIT,
	['-'] = C_MINUS, ['+'] = C_PLUS, ['.'] = C_POINT, ['e'] = C_EXPONENT, ['E'] = C_EXPONENT,
	['t'] = C_LETTER, ['f'] = C_LETTER, ['n'] = C_LETTER,
};

const uint8_t scan_escape[256] = {
	['"'] = '"', ['\\'] = '\\', ['/'] = '/', ['b'] = '\b', ['f'] = '\f',
	['n'] = '\n', ['r'] = '\r', ['t'] = '\t', ['u'] = 'u',
};

const uint8_t scan_hex[256] = {
	['0'] = 16, ['1'] = 17, ['2'] = 18, ['3'] = 19, ['4'] = 20, ['5'] = 21, ['6'] = 22, ['7'] = 23,
	['8'] = 24, ['9'] = 25, ['a'] = 26, ['b'] = 27, ['c'] = 28, ['d'] = 29, ['e'] = 30, ['f'] = 31,
	['A'] = 26, ['B'] = 27, ['C'] = 28, ['D'] = 29, ['E'] = 30, ['F'] = 31,
};

#define SPACE [C_SPACE] = PASS
#define VALUE                                                                         \
	[C_QUOTE] = BEGIN_STRING, [C_OBJECT] = BEGIN_OBJECT, [C_ARRAY] = BEGIN_ARRAY, \
	[C_MINUS] = BEGIN_NUMBER, [C_ZERO] = BEGIN_NUMBER, [C_DIGIT] = BEGIN_NUMBER,  \
	[C_LETTER] = BEGIN_LITERAL
#define ANY   [0 ... N_CLASSES - 1]

const uint8_t scan_grammar[N_STATES][N_CLASSES] = {
	[AT_VALUE]      = { SPACE, VALUE },
	[AT_FIRST_ITEM] = { SPACE, VALUE, [C_ARRAY_END] = END_CONTAINER },
	[AT_FIRST_KEY]  = { SPACE, [C_QUOTE] = BEGIN_KEY, [C_OBJECT_END] = END_CONTAINER },
	[AT_KEY]        = { SPACE, [C_QUOTE] = BEGIN_KEY },
	[AT_COLON]      = { SPACE, [C_COLON] = GO_VALUE },
	[AFTER_ITEM]    = { SPACE, [C_COMMA] = GO_VALUE, [C_ARRAY_END] = END_CONTAINER },
	[AFTER_MEMBER]  = { SPACE, [C_COMMA] = GO_KEY, [C_OBJECT_END] = END_CONTAINER },
	[AT_END]        = { SPACE },
	[IN_KEY]        = { ANY = MORE_STRING },
	[IN_STRING]     = { ANY = MORE_STRING },
	[IN_NUMBER]     = { ANY = MORE_NUMBER },
	[IN_LITERAL]    = { ANY = MORE_LITERAL },
};

#undef SPACE
#undef VALUE
#undef ANY

const uint8_t scan_number_grammar[N_NUMBER_STATES][N_CLASSES] = {
	[AT_NUMBER]   = { [C_ZERO] = IN_ZERO, [C_DIGIT] = IN_INTEGER, [C_MINUS] = AT_INTEGER },
	[AT_INTEGER]  = { [C_ZERO] = IN_ZERO, [C_DIGIT] = IN_INTEGER },
	[IN_ZERO]     = { [C_POINT] = AT_FRACTION, [C_EXPONENT] = AT_EXPONENT },
	[IN_INTEGER]  = { [C_ZERO] = IN_INTEGER, [C_DIGIT] = IN_INTEGER,
			  [C_POINT] = AT_FRACTION, [C_EXPONENT] = AT_EXPONENT },
	[AT_FRACTION] = { [C_ZERO] = IN_FRACTION, [C_DIGIT] = IN_FRACTION },
	[IN_FRACTION] = { [C_ZERO] = IN_FRACTION, [C_DIGIT] = IN_FRACTION, [C_EXPONENT] = AT_EXPONENT },
	[AT_EXPONENT] = { [C_ZERO] = IN_POWER, [C_DIGIT] = IN_POWER, [C_MINUS] = AT_POWER, [C_PLUS] = AT_POWER },
	[AT_POWER]    = { [C_ZERO] = IN_POWER, [C_DIGIT] = IN_POWER },
	[IN_POWER]    = { [C_ZERO] = IN_POWER, [C_DIGIT] = IN_POWER },
};
/* clang-format on */
