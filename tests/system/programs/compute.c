/* compute: integer, floating-point and vector work whose results depend on every bit on the
 * way. Prints the same on any x86-64 processor with the same features; run on the host and in
 * a guest, the two outputs must be equal. */
#include <cpuid.h>
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t seed = 0x9e3779b97f4a7c15ull;

static uint64_t next(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static uint64_t fnv(const void *p, size_t n)
{
	const uint8_t *b = p;
	uint64_t h = 0xcbf29ce484222325ull;

	while (n--)
		h = (h ^ *b++) * 0x100000001b3ull;
	return h;
}

static void show(const char *name, const void *p, size_t n)
{
	printf("%-12s %016llx\n", name, (unsigned long long)fnv(p, n));
}

static void fill(void *p, size_t n)
{
	uint8_t *b = p;

	while (n--)
		*b++ = (uint8_t)next();
}

/* ---- integers ---- */

static uint32_t ror(uint32_t v, int n)
{
	return v >> n | v << (32 - n);
}

static void sha256(const uint8_t *data, size_t blocks, uint32_t h[8])
{
	static uint32_t k[64];

	if (!k[0])
		for (int i = 0; i < 64; i++)
			k[i] = (uint32_t)(fabs(sin(i + 1.0)) * 4294967296.0);
	for (; blocks--; data += 64) {
		uint32_t w[64], s[8];

		for (int i = 0; i < 16; i++)
			w[i] = __builtin_bswap32(((const uint32_t *)data)[i]);
		for (int i = 16; i < 64; i++)
			w[i] = w[i - 16] +
			       (ror(w[i - 15], 7) ^ ror(w[i - 15], 18) ^ w[i - 15] >> 3) +
			       w[i - 7] + (ror(w[i - 2], 17) ^ ror(w[i - 2], 19) ^ w[i - 2] >> 10);
		memcpy(s, h, sizeof s);
		for (int i = 0; i < 64; i++) {
			uint32_t t1 = s[7] + (ror(s[4], 6) ^ ror(s[4], 11) ^ ror(s[4], 25)) +
				      ((s[4] & s[5]) ^ (~s[4] & s[6])) + k[i] + w[i];
			uint32_t t2 = (ror(s[0], 2) ^ ror(s[0], 13) ^ ror(s[0], 22)) +
				      ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));

			memmove(s + 1, s, 28);
			s[4] += t1;
			s[0] = t1 + t2;
		}
		for (int i = 0; i < 8; i++)
			h[i] += s[i];
	}
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t ackermann(uint64_t m, uint64_t n)
{
	return m == 0   ? n + 1
	       : n == 0 ? ackermann(m - 1, 1)
			: ackermann(m - 1, ackermann(m, n - 1));
}

static void integers(void)
{
	static uint8_t data[1 << 16];
	static uint64_t keys[50000];
	uint32_t h[8] = {1, 2, 3, 4, 5, 6, 7, 8};
	uint64_t mix = 1, out[6] = {0};

	fill(data, sizeof data);
	for (int i = 0; i < 8; i++)
		sha256(data, sizeof data / 64, h);
	show("sha256", h, sizeof h);
	for (int i = 0; i < 50000; i++)
		keys[i] = next();
	qsort(keys, 50000, sizeof keys[0], compare);
	show("qsort", keys, sizeof keys);
	out[0] = ackermann(2, 2000);
	for (int i = 1; i < 200000; i++) {
		uint64_t a = next(), b = next() | 1;
		unsigned __int128 p = (unsigned __int128)a * b;

		mix += (uint64_t)p ^ (uint64_t)(p >> 64);
		out[1] += a / (b >> 20) + a % (b >> 20);
		out[2] += (uint64_t)((int64_t)a / (int32_t)b) + (uint64_t)__builtin_clzll(b) +
			  (uint64_t)__builtin_ctzll(a | 1);
		out[3] ^= a << (b & 63) | a >> (-b & 63);
		out[4] += (uint64_t)((uint8_t)a * (uint8_t)b) + (uint16_t)a / ((uint8_t)b | 1u);
		mix = mix * 6364136223846793005ull + 1442695040888963407ull;
	}
	out[5] = mix;
	show("arithmetic", out, sizeof out);
}

/* ---- strings: the C library picks vector code by CPUID ---- */

static void strings(void)
{
	static char a[20000], b[20000];
	uint64_t sum = 0;

	for (int i = 0; i < 3000; i++) {
		size_t n = next() % 9000, at = next() % 200;

		memset(a, 'a' + i % 26, sizeof a);
		a[at + n] = 0;
		strcpy(b + i % 64, a + at);
		sum = sum * 31 + strlen(b + i % 64) + (uint64_t)(memcmp(a, b, n) > 0) +
		      (uint64_t)(strchr(a + at, 'z') ? 1 : 0) + (uint64_t)(strrchr(b, 'b') ? 2 : 0);
		memmove(b + next() % 100, b + next() % 100, n);
		sum += fnv(b, 300);
	}
	show("strings", &sum, sizeof sum);
}

/* ---- floating point ---- */

static void floats(void)
{
	double x = 0.5, sum = 0;
	long double l = 1;
	float f = 1;
	char text[200];

	for (int i = 1; i < 100000; i++) {
		x = x * 3.9 * (1 - x);
		sum += sqrt(x) / i + sin(x) * cos(i) + exp(-x) + log(i) + pow(x, 0.3);
		l = l * 1.0000001L + sqrtl(i) / (l + 1) + atan2l(l, i);
		f = f * 1.0001f + (float)x / (float)i;
	}
	snprintf(text, sizeof text, "%.17g %.20Lg %.9g %a", sum, l, f, x);
	printf("floats       %s\n", text);
	snprintf(text, sizeof text, "%d %u %lld %.3f %e", (int)sum, (unsigned)f, (long long)l,
		 1.0 / 3, 1e300 * 1e10);
	printf("converted    %s\n", text);
}

#define VECTOR(features) __attribute__((target(features), noinline)) static void

VECTOR("sse4.2,aes,pclmul,ssse3") sse(void)
{
	__m128i v[64], acc = _mm_setzero_si128();

	fill(v, sizeof v);
	for (int r = 0; r < 2000; r++)
		for (int i = 0; i < 64; i++) {
			__m128i t = _mm_shuffle_epi8(
				v[i], _mm_and_si128(v[(i + 1) % 64], _mm_set1_epi8(15)));

			acc = _mm_aesenc_si128(_mm_add_epi32(acc, t), v[(i + r) % 64]);
			acc = _mm_xor_si128(acc, _mm_clmulepi64_si128(acc, t, 0x10));
			acc = _mm_blendv_epi8(acc, _mm_mullo_epi32(acc, t), v[i]);
			v[i] = _mm_sub_epi64(v[i], acc);
		}
	show("sse", v, sizeof v);
}

VECTOR("avx2,fma,f16c,bmi,bmi2") avx2(void)
{
	__m256i v[64], acc = _mm256_set1_epi64x(3);
	__m256 f = _mm256_set1_ps(1.5f);
	uint64_t g = 1;
	int32_t table[256];

	fill(v, sizeof v);
	fill(table, sizeof table);
	for (int r = 0; r < 2000; r++)
		for (int i = 0; i < 64; i++) {
			acc = _mm256_add_epi64(acc, _mm256_permutevar8x32_epi32(v[i], acc));
			acc = _mm256_xor_si256(
				acc,
				_mm256_i32gather_epi32(
					table, _mm256_and_si256(v[i], _mm256_set1_epi32(255)), 4));
			f = _mm256_fmadd_ps(f, _mm256_set1_ps(0.999f),
					    _mm256_cvtph_ps(_mm256_castsi256_si128(_mm256_and_si256(
						    v[i], _mm256_set1_epi16(0x3fff)))));
			_mm256_maskstore_epi32((int *)&v[i], acc, _mm256_srli_epi32(acc, 3));
			g = _pext_u64(g * 0x9e3779b97f4a7c15ull,
				      0xf0f0f0f0ff00ff00ull + (uint64_t)i) +
			    _pdep_u64(g, 0x5555aaaa5555aaaaull) + _andn_u64(g, (uint64_t)r);
		}
	show("avx2", v, sizeof v);
	show("fma", &f, sizeof f);
	show("bmi", &g, sizeof g);
}

VECTOR("avx512f,avx512bw,avx512vl,avx512dq") avx512(void)
{
	__m512i v[32], acc = _mm512_set1_epi32(7);
	uint8_t edge[256];

	fill(v, sizeof v);
	fill(edge, sizeof edge);
	for (int r = 0; r < 2000; r++)
		for (int i = 0; i < 32; i++) {
			__mmask64 k = _mm512_movepi8_mask(v[i]);

			acc = _mm512_mask_add_epi8(acc, k, acc, v[i]);
			acc = _mm512_rol_epi32(_mm512_mullo_epi32(acc, v[(i + 1) % 32]), 7);
			acc = _mm512_ternarylogic_epi32(acc, v[i], v[(i + 3) % 32], 0x96);
			_mm512_mask_storeu_epi8(edge + i, k, acc);
			_mm512_mask_compressstoreu_epi32(edge + 64, (__mmask16)k, acc);
			v[i] = _mm512_mask_loadu_epi8(v[i], ~k, edge + 2 * i);
		}
	show("avx512", v, sizeof v);
}

VECTOR("sha,sse4.1") sha_ni(void)
{
	__m128i a = _mm_set1_epi32(1), b = _mm_set1_epi32(2), m;

	fill(&m, sizeof m);
	for (int i = 0; i < 10000; i++) {
		a = _mm_sha256rnds2_epu32(a, b, m);
		b = _mm_sha256msg1_epu32(b, a);
		m = _mm_sha1rnds4_epu32(m, a, 2);
	}
	show("sha-ni", &m, sizeof m);
}

static void features(void)
{
	static const char *const names[] = {"sse3", "ssse3",   "sse4.1",   "sse4.2",  "popcnt",
					    "aes",  "avx",     "avx2",     "fma",     "bmi",
					    "bmi2", "avx512f", "avx512bw", "avx512vl"};
	int has[] = {__builtin_cpu_supports("sse3"),     __builtin_cpu_supports("ssse3"),
		     __builtin_cpu_supports("sse4.1"),   __builtin_cpu_supports("sse4.2"),
		     __builtin_cpu_supports("popcnt"),   __builtin_cpu_supports("aes"),
		     __builtin_cpu_supports("avx"),      __builtin_cpu_supports("avx2"),
		     __builtin_cpu_supports("fma"),      __builtin_cpu_supports("bmi"),
		     __builtin_cpu_supports("bmi2"),     __builtin_cpu_supports("avx512f"),
		     __builtin_cpu_supports("avx512bw"), __builtin_cpu_supports("avx512vl")};

	printf("features    ");
	for (unsigned i = 0; i < sizeof has / sizeof has[0]; i++)
		printf(" %s%s", has[i] ? "" : "no-", names[i]);
	printf("\n");
}

int main(void)
{
	unsigned a, b = 0, c, d;

	features();
	integers();
	strings();
	floats();
	if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("aes"))
		sse();
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
	    __builtin_cpu_supports("bmi2"))
		avx2();
	if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
	    __builtin_cpu_supports("avx512dq"))
		avx512();
	__get_cpuid_count(7, 0, &a, &b, &c, &d);
	if (b >> 29 & 1)
		sha_ni();
	return 0;
}
