// The tensor cores of nvcuda::wmma on the host.
//
// As on a GPU every lane of a warp holds a share of a tile. For a product they lay their shares of the factors out in memory, and each
// works its share of the result out: products of factors are exact in f32, in which they are summed one after another. Integers are left
// out, so that a kernel that takes them is refused.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace nvcuda {
namespace wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
namespace precision {
struct tf32;
}
enum layout_t { mem_row_major, mem_col_major };

template <class Use, int M, int N, int K> struct Sides;
template <int M, int N, int K> struct Sides<matrix_a, M, N, K> { static const int rows = M, columns = K; };
template <int M, int N, int K> struct Sides<matrix_b, M, N, K> { static const int rows = K, columns = N; };
template <int M, int N, int K> struct Sides<accumulator, M, N, K> { static const int rows = M, columns = N; };

template <class T> struct Held;
template <> struct Held<float> { using type = float; };
template <> struct Held<__half> { using type = __half; };
template <> struct Held<__nv_bfloat16> { using type = __nv_bfloat16; };
template <> struct Held<precision::tf32> { using type = float; };

// What a tensor core makes of a factor.
template <class T> inline float factor(typename Held<T>::type value) { return value; }
template <> inline float factor<precision::tf32>(float value) { return emulated_tf32(value); }

// A lane has one column, and of that as many rows, one below the other.
template <class Use, int M, int N, int K, class T, class Layout = void> struct fragment : Sides<Use, M, N, K> {
    using Of = Sides<Use, M, N, K>;
    static const int num_elements = Of::rows * Of::columns / 32;
    typename Held<T>::type x[num_elements];
    static int row() { return emulated_lane() / Of::columns * num_elements; }
    static int column() { return emulated_lane() % Of::columns; }
};

template <class F, class V> inline void fill_fragment(F& to, V value) {
    for (auto& x : to.x) x = value;
}

template <class F, class P> inline void load(F& to, const P* from, unsigned stride, bool by_rows) {
    from += by_rows ? F::row() * stride + F::column() : F::column() * stride + F::row();
    for (int i = 0; i < F::num_elements; i++, from += by_rows ? stride : 1) to.x[i] = *from;
}

template <class Use, int M, int N, int K, class T, class P> inline void load_matrix_sync(fragment<Use, M, N, K, T, row_major>& to, const P* from, unsigned stride) {
    load(to, from, stride, true);
}

template <class Use, int M, int N, int K, class T, class P> inline void load_matrix_sync(fragment<Use, M, N, K, T, col_major>& to, const P* from, unsigned stride) {
    load(to, from, stride, false);
}

template <int M, int N, int K, class T, class P> inline void load_matrix_sync(fragment<accumulator, M, N, K, T>& to, const P* from, unsigned stride, layout_t layout) {
    load(to, from, stride, layout == mem_row_major);
}

template <int M, int N, int K, class T, class P> inline void store_matrix_sync(P* to, const fragment<accumulator, M, N, K, T>& from, unsigned stride, layout_t layout) {
    bool by_rows = layout == mem_row_major;
    to += by_rows ? from.row() * stride + from.column() : from.column() * stride + from.row();
    for (int i = 0; i < from.num_elements; i++, to += by_rows ? stride : 1) *to = from.x[i];
}

template <int M, int N, int K, class T, class A, class B, class D, class C>
inline void mma_sync(fragment<accumulator, M, N, K, D>& to, const fragment<matrix_a, M, N, K, T, A>& a, const fragment<matrix_b, M, N, K, T, B>& b,
                     const fragment<accumulator, M, N, K, C>& plus) {
    struct Factors {
        float a[K][M], b[K][N];
    };
    auto& factors = emulated_together<Factors>();
    float* part = &factors.a[a.column()][a.row()];
    for (int i = 0; i < a.num_elements; i++) part[i] = factor<T>(a.x[i]);
    part = &factors.b[b.row()][b.column()];
    for (int i = 0; i < b.num_elements; i++) part[i * N] = factor<T>(b.x[i]);
    __syncwarp();
    const int row = to.row(), column = to.column();
    float sums[to.num_elements];
    for (int i = 0; i < to.num_elements; i++) sums[i] = plus.x[i];
    for (int k = 0; k < K; k++)
        for (int i = 0; i < to.num_elements; i++) sums[i] += factors.a[k][row + i] * factors.b[k][column];
    for (int i = 0; i < to.num_elements; i++) to.x[i] = sums[i];
}

// To 10 bits after the point, away from zero where two are as near: cvt.rna.tf32.f32.
inline float __float_to_tf32(float value) {
    unsigned bits;
    __builtin_memcpy(&bits, &value, 4);
    if ((bits & 0x7f800000) != 0x7f800000) bits += 0x1000;
    __builtin_memcpy(&value, &bits, 4);
    return emulated_tf32(value);
}

}
}
