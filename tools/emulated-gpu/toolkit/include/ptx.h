// Instructions that kernels write out as assembler; translate.py has them call these. What an instruction writes comes last.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

inline void emulated_max(float a, float b, float& to) { to = a != a || b != b ? __builtin_nanf("") : a > b ? a : b; }
inline void emulated_min(float a, float b, float& to) { to = a != a || b != b ? __builtin_nanf("") : a < b ? a : b; }
inline void emulated_add(const void* at, float value, float& before) {
    before = *(float*)at;
    *(float*)at = before + value;
}

// An address within shared memory, and back.
inline unsigned __cvta_generic_to_shared(const void* at) { return (const char*)at - emulated_gpu->shared; }
inline char* emulated_shared(unsigned at) { return emulated_gpu->shared + at; }

// cp.async: at once. What is not there becomes zeros.
inline void emulated_copy(unsigned to, const void* from, unsigned size, unsigned there) {
    __builtin_memset(emulated_shared(to), 0, size);
    __builtin_memcpy(emulated_shared(to), from, there < size ? there : size);
}
inline void emulated_copied(unsigned) {}

// ldmatrix: of every 8x8 matrix eight lanes say where its rows are. A lane takes two elements that are beside each other in a row, or,
// transposed, in a column.
template <bool transposed, class... To> inline void emulated_ldmatrix(unsigned row, To&... to) {
    struct Rows {
        const unsigned short* at[32];
    };
    auto& rows = emulated_together<Rows>();
    unsigned lane = emulated_lane(), one = lane / 4, two = lane % 4 * 2, matrix = 0;
    rows.at[lane] = (const unsigned short*)emulated_shared(row);
    __syncwarp();
    auto element = [&](unsigned i) { return (unsigned)(transposed ? rows.at[matrix + two + i][one] : rows.at[matrix + one][two + i]); };
    ((to = element(0) | element(1) << 16, matrix += 8), ...);
}

struct EmulatedTf32 {
    float value;
    operator float() const { return emulated_tf32(value); }
};

// mma.sync of 16xK and Kx8, with four and two registers of factors and four sums in each lane.
template <class T, class A, class B>
inline void emulated_mma(A a0, A a1, A a2, A a3, B b0, B b1, float c0, float c1, float c2, float c3, float& d0, float& d1, float& d2, float& d3) {
    static_assert(sizeof(A) == 4 && sizeof(B) == 4, "registers have 32 bits");
    const int each = 4 / sizeof(T), K = 8 * each;
    struct Factors {
        float a[K][16], b[K][8];
    };
    auto& factors = emulated_together<Factors>();
    const int group = emulated_lane() / 4, in_group = emulated_lane() % 4;
    const A a[] = {a0, a1, a2, a3};
    const B b[] = {b0, b1};
    T parts[each];
    for (int r = 0; r < 4; r++) {
        __builtin_memcpy(parts, &a[r], 4);
        for (int e = 0; e < each; e++) factors.a[in_group * each + e + r / 2 * 4 * each][group + r % 2 * 8] = parts[e];
    }
    for (int r = 0; r < 2; r++) {
        __builtin_memcpy(parts, &b[r], 4);
        for (int e = 0; e < each; e++) factors.b[in_group * each + e + r * 4 * each][group] = parts[e];
    }
    __syncwarp();
    float sums[] = {c0, c1, c2, c3};
    for (int k = 0; k < K; k++)
        for (int i = 0; i < 4; i++) sums[i] += factors.a[k][group + i / 2 * 8] * factors.b[k][in_group * 2 + i % 2];
    d0 = sums[0], d1 = sums[1], d2 = sums[2], d3 = sums[3];
}
