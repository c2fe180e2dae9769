/* cpu_float: scalar double precision, and the same loops over vectors of SSE2 and AVX2. */
#include <immintrin.h>
#include <string.h>

#include "cpu.h"

enum { BODIES = 5, STEPS = 10000 };

struct body {
	double at[3], speed[3], mass;
};

static void advance(struct body *b, double step)
{
	for (unsigned i = 0; i < BODIES; i++)
		for (unsigned j = i + 1; j < BODIES; j++) {
			double d[3], square = 0, pull;

			for (unsigned k = 0; k < 3; k++) {
				d[k] = b[i].at[k] - b[j].at[k];
				square += d[k] * d[k];
			}
			pull = step / (square * __builtin_sqrt(square));
			for (unsigned k = 0; k < 3; k++) {
				b[i].speed[k] -= d[k] * b[j].mass * pull;
				b[j].speed[k] += d[k] * b[i].mass * pull;
			}
		}
	for (unsigned i = 0; i < BODIES; i++)
		for (unsigned k = 0; k < 3; k++)
			b[i].at[k] += step * b[i].speed[k];
}

static uint64_t n_body(void)
{
	struct body b[BODIES];

	for (unsigned i = 0; i < BODIES; i++)
		b[i] = (struct body){
			{5.0 * i, 3.0 - i, 0.5 * i}, {0, 0.3 * i, 0.1}, 10.0 / (i + 1)};
	for (unsigned i = 0; i < STEPS; i++)
		advance(b, 0.001);
	return checksum(0, b, sizeof b);
}

/* Is a point of the plane in the Mandelbrot set: scalar, with a branch for each round. */
static uint64_t mandelbrot(void)
{
	uint64_t sum = 0;

	for (unsigned y = 0; y < 48; y++)
		for (unsigned x = 0; x < 64; x++) {
			double cr = x / 24.0 - 2, ci = y / 24.0 - 1, r = 0, i = 0;
			unsigned n = 0;

			for (; n < 200 && r * r + i * i < 4; n++) {
				double t = r * r - i * i + cr;

				i = 2 * r * i + ci;
				r = t;
			}
			sum = sum * 3 + n;
		}
	return sum;
}

enum { SIDE = 64, PIXELS = 16384 };
static float a[SIDE][SIDE] __attribute__((aligned(32))), b[SIDE][SIDE] __attribute__((aligned(32)));
static float c[SIDE][SIDE] __attribute__((aligned(32)));
static uint8_t one[PIXELS] __attribute__((aligned(32))), two[PIXELS] __attribute__((aligned(32)));
static uint8_t mixed[PIXELS] __attribute__((aligned(32)));

static int vector_setup(void)
{
	uint64_t seed = 19;

	for (unsigned i = 0; i < SIDE * SIDE; i++) {
		a[i / SIDE][i % SIDE] = (float)(next_random(&seed) % 1000) / 7;
		b[i / SIDE][i % SIDE] = (float)(next_random(&seed) % 1000) / 9;
	}
	for (unsigned i = 0; i < PIXELS; i++) {
		one[i] = (uint8_t)next_random(&seed);
		two[i] = (uint8_t)next_random(&seed);
	}
	return 0;
}

static int avx2_setup(void)
{
	return __builtin_cpu_supports("avx2") ? vector_setup() : 1;
}

static uint64_t matrix_sse2(void)
{
	for (unsigned times = 0; times < 8; times++)
		for (unsigned i = 0; i < SIDE; i++)
			for (unsigned j = 0; j < SIDE; j += 8) {
				__m128 low = _mm_setzero_ps(), high = low;

				for (unsigned k = 0; k < SIDE; k++) {
					__m128 x = _mm_set1_ps(a[i][k]);

					low = _mm_add_ps(low, _mm_mul_ps(x, _mm_load_ps(&b[k][j])));
					high = _mm_add_ps(high,
							  _mm_mul_ps(x, _mm_load_ps(&b[k][j + 4])));
				}
				_mm_store_ps(&c[i][j], low);
				_mm_store_ps(&c[i][j + 4], high);
			}
	return checksum(0, c, sizeof c / 8);
}

__attribute__((target("avx2"))) static uint64_t matrix_avx2(void)
{
	for (unsigned times = 0; times < 8; times++)
		for (unsigned i = 0; i < SIDE; i++)
			for (unsigned j = 0; j < SIDE; j += 16) {
				__m256 low = _mm256_setzero_ps(), high = low;

				for (unsigned k = 0; k < SIDE; k++) {
					__m256 x = _mm256_set1_ps(a[i][k]);

					low = _mm256_add_ps(
						low, _mm256_mul_ps(x, _mm256_load_ps(&b[k][j])));
					high = _mm256_add_ps(
						high,
						_mm256_mul_ps(x, _mm256_load_ps(&b[k][j + 8])));
				}
				_mm256_store_ps(&c[i][j], low);
				_mm256_store_ps(&c[i][j + 8], high);
			}
	return checksum(0, c, sizeof c / 8);
}

/* Pictures: two are blended, and the distance to the first is summed up. */
static uint64_t pixels_sse2(void)
{
	const __m128i zero = _mm_setzero_si128(), weight = _mm_set1_epi16(77);
	__m128i sum = zero;

	for (unsigned times = 0; times < 64; times++)
		for (unsigned i = 0; i < PIXELS; i += 16) {
			__m128i x = _mm_load_si128((const void *)(one + i));
			__m128i y = _mm_load_si128((const void *)(two + i));
			__m128i low = _mm_sub_epi16(_mm_unpacklo_epi8(y, zero),
						    _mm_unpacklo_epi8(x, zero));
			__m128i high = _mm_sub_epi16(_mm_unpackhi_epi8(y, zero),
						     _mm_unpackhi_epi8(x, zero));
			__m128i z;

			low = _mm_srai_epi16(_mm_mullo_epi16(low, weight), 8);
			high = _mm_srai_epi16(_mm_mullo_epi16(high, weight), 8);
			z = _mm_add_epi8(x, _mm_packs_epi16(low, high));
			_mm_store_si128((void *)(mixed + i), z);
			sum = _mm_add_epi64(sum, _mm_sad_epu8(x, z));
		}
	return checksum((uint64_t)_mm_cvtsi128_si64(sum), mixed, 4096);
}

__attribute__((target("avx2"))) static uint64_t pixels_avx2(void)
{
	const __m256i zero = _mm256_setzero_si256(), weight = _mm256_set1_epi16(77);
	__m256i sum = zero;

	for (unsigned times = 0; times < 64; times++)
		for (unsigned i = 0; i < PIXELS; i += 32) {
			__m256i x = _mm256_load_si256((const void *)(one + i));
			__m256i y = _mm256_load_si256((const void *)(two + i));
			__m256i low = _mm256_sub_epi16(_mm256_unpacklo_epi8(y, zero),
						       _mm256_unpacklo_epi8(x, zero));
			__m256i high = _mm256_sub_epi16(_mm256_unpackhi_epi8(y, zero),
							_mm256_unpackhi_epi8(x, zero));
			__m256i z;

			low = _mm256_srai_epi16(_mm256_mullo_epi16(low, weight), 8);
			high = _mm256_srai_epi16(_mm256_mullo_epi16(high, weight), 8);
			z = _mm256_add_epi8(x, _mm256_packs_epi16(low, high));
			_mm256_store_si256((void *)(mixed + i), z);
			sum = _mm256_add_epi64(sum, _mm256_sad_epu8(x, z));
		}
	return checksum((uint64_t)_mm256_extract_epi64(sum, 0), mixed, 4096);
}

const struct test float_tests[] = {
	{"float", "n-body", "step", STEPS, n_body, NULL, NULL},
	{"float", "mandelbrot", "point", 48 * 64, mandelbrot, NULL, NULL},
	{"float", "matrix-sse2", "matrix", 8, matrix_sse2, vector_setup, NULL},
	{"float", "matrix-avx2", "matrix", 8, matrix_avx2, avx2_setup, NULL},
	{"float", "pixels-sse2", "KiB", 64 * PIXELS / 1024, pixels_sse2, vector_setup, NULL},
	{"float", "pixels-avx2", "KiB", 64 * PIXELS / 1024, pixels_avx2, avx2_setup, NULL},
	{0},
};
