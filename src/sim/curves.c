#include "sim/curves.h"

#include <math.h>

#define WIDTH    860.0
#define HEIGHT   500.0
#define LEFT     70.0
#define RIGHT    32.0
#define TOP      50.0
#define BOTTOM   60.0
#define POINTS   200
#define NS_PER_S 1e9

/* The axis of time, in decimal logarithms of seconds, whole ones. */
struct axis {
	int from, to;
};

static double x_of(struct axis axis, double log_s) {
	double clipped = fmax(axis.from, fmin(axis.to, log_s));

	return LEFT + (WIDTH - LEFT - RIGHT) * (clipped - axis.from) / (axis.to - axis.from);
}

static double y_of(double share) {
	return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share;
}

static double log_s_of(uint64_t ns) {
	return log10(fmax(1, (double)ns) / NS_PER_S);
}

/* Begins with a hundredth of the requests: the few that are quicker need no room. */
static struct axis axis_of(const struct score *scores, size_t n) {
	double low = INFINITY, high = -INFINITY;

	for (size_t i = 0; i < n; i++) {
		low = fmin(low, log_s_of(scores[i].sorted_ns[scores[i].n / 100]));
		high = fmax(high, log_s_of(scores[i].sorted_ns[scores[i].n - 1]));
	}
	struct axis axis = { (int)floor(low), (int)ceil(high) };
	if (axis.to <= axis.from)
		axis.to = axis.from + 1;
	return axis;
}

static const char *colour_of(size_t i) {
	static const char *const colours[] = { "#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e",
		"#17becf", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22" };

	return colours[i % n_elems(colours)];
}

static void print_escaped(const char *text, FILE *out) {
	for (const char *c = text; *c; c++) {
		if (*c == '<' || *c == '>' || *c == '&' || (unsigned char)*c < ' ')
			fprintf(out, "&#%d;", (unsigned char)*c < ' ' ? ' ' : *c);
		else
			fputc(*c, out);
	}
}

static void print_text(double x, double y, const char *anchor, const char *text, FILE *out) {
	fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
	print_escaped(text, out);
	fputs("</text>\n", out);
}

static void print_line(double x1, double y1, double x2, double y2, const char *colour, FILE *out) {
	fprintf(out, "<path d=\"M%.1f %.1fL%.1f %.1f\" stroke=\"%s\"/>\n", x1, y1, x2, y2, colour);
}

static void print_grid(struct axis axis, FILE *out) {
	char label[32];

	for (int percent = 0; percent <= 100; percent += 10) {
		double y = y_of(percent / 100.0);

		print_line(LEFT, y, WIDTH - RIGHT, y, "#ddd", out);
		snprintf(label, sizeof(label), "%d %%", percent);
		print_text(LEFT - 8, y + 4, "end", label, out);
	}
	for (int power = axis.from; power <= axis.to; power++) {
		double x = x_of(axis, power);

		for (int digit = 2; digit < 10 && power < axis.to; digit++) {
			double between = x_of(axis, power + log10(digit));

			print_line(between, y_of(0), between, y_of(1), "#eee", out);
		}
		print_line(x, y_of(0), x, y_of(1), "#bbb", out);
		snprintf(label, sizeof(label), "%.*f s", power < 0 ? -power : 0, pow(10, power));
		print_text(x, y_of(0) + 20, "middle", label, out);
	}
	print_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, "middle", "time to first token", out);
}

static void print_curve(const struct score *score, struct axis axis, const char *colour, FILE *out) {
	fprintf(out, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"2\" d=\"", colour);
	for (size_t i = 0; i <= POINTS; i++) {
		size_t at = size_min(score->n * i / POINTS, score->n - 1);

		fprintf(out, "%s%.1f %.1f", i ? "L" : "M", x_of(axis, log_s_of(score->sorted_ns[at])),
		    y_of((double)i / POINTS));
	}
	fputs("\"/>\n", out);
}

static void print_legend(const struct score *score, size_t i, FILE *out) {
	double y = TOP + 20 + 20 * (double)i;

	fprintf(out, "<path d=\"M%.1f %.1fh24\" stroke=\"%s\" stroke-width=\"2\"/>\n", LEFT + 14, y - 4,
	    colour_of(i));
	print_text(LEFT + 46, y, "start", score->policy, out);
}

void curves_print(const struct score *scores, size_t n, const char *title, FILE *out) {
	struct axis axis = axis_of(scores, n);

	fprintf(out,
	    "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
	    "height=\"%.0f\" font-family=\"sans-serif\" font-size=\"13\">\n"
	    "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
	    WIDTH, HEIGHT, WIDTH, HEIGHT);
	print_text(LEFT, TOP - 20, "start", title, out);
	print_grid(axis, out);
	for (size_t i = 0; i < n; i++)
		print_curve(&scores[i], axis, colour_of(i), out);
	fprintf(out,
	    "<rect x=\"%.1f\" y=\"%.1f\" width=\"190\" height=\"%zu\" fill=\"white\" opacity=\"0.85\"/>\n",
	    LEFT + 6, TOP + 2, 20 * n + 8);
	for (size_t i = 0; i < n; i++)
		print_legend(&scores[i], i, out);
	fputs("</svg>\n", out);
}
