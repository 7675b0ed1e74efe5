// What kernels find in CUDA's C++, on the host.
#pragma once

struct EmulatedPlace {
    unsigned x, y, z;
};

// Where the thread that is running stands.
struct EmulatedThread {
    EmulatedPlace thread, cube, block, grid;
};

// What the driver gives every kernel.
struct EmulatedGpu {
    EmulatedThread* here;
    void (*barrier)();
    void (*warp_barrier)();
    unsigned (*exchange)(unsigned value, unsigned lane);
    void (*wait)();
    char* shared;
};

#ifdef EMULATED_KERNEL
extern "C" const EmulatedGpu* emulated_gpu;
const EmulatedGpu* emulated_gpu;

using size_t = unsigned long;
#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __restrict__
#define __shared__ static
#define __align__(n) alignas(n)
#define threadIdx emulated_gpu->here->thread
#define blockIdx emulated_gpu->here->cube
#define blockDim emulated_gpu->here->block
#define gridDim emulated_gpu->here->grid
#define __syncthreads() emulated_gpu->barrier()
#define __syncwarp(...) emulated_gpu->warp_barrier()
#define warpSize 32
inline unsigned __activemask() { return ~0u; }
inline unsigned emulated_thread() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }
inline unsigned emulated_lane() { return emulated_thread() % 32; }

// Memory in which the lanes of a warp lay out what an instruction takes from all of them, before they wait for each other. There are two
// in turn: a lane that lays out for the next instruction does not disturb those that still read.
template <class T> inline T& emulated_together() {
    static T all[32][2];
    static unsigned char turns[1024];
    unsigned thread = emulated_thread();
    return all[thread / 32][turns[thread]++ % 2];
}

// Tensor cores leave the lowest 13 bits of a factor out.
inline float emulated_tf32(float value) {
    unsigned bits;
    __builtin_memcpy(&bits, &value, 4);
    bits &= ~0x1fffu;
    __builtin_memcpy(&value, &bits, 4);
    return value;
}

template <class T> inline T __shfl_sync(unsigned, T value, unsigned lane) {
    unsigned bits[(sizeof(T) + 3) / 4] = {};
    __builtin_memcpy(bits, &value, sizeof(T));
    for (unsigned& part : bits) part = emulated_gpu->exchange(part, lane);
    __builtin_memcpy(&value, bits, sizeof(T));
    return value;
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T value, unsigned by) { return __shfl_sync(mask, value, emulated_lane() ^ by); }
template <class T> inline T __shfl_up_sync(unsigned mask, T value, unsigned by) { return __shfl_sync(mask, value, emulated_lane() < by ? emulated_lane() : emulated_lane() - by); }
template <class T> inline T __shfl_down_sync(unsigned mask, T value, unsigned by) { return __shfl_sync(mask, value, emulated_lane() + by > 31 ? emulated_lane() : emulated_lane() + by); }

inline int __ffs(int a) { return __builtin_ffs(a); }
inline int __clz(int a) { return a ? __builtin_clz(a) : 32; }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((unsigned long)a * b) >> 32); }
inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline bool isnan(float a) { return a != a; }
inline bool isinf(float a) { return __builtin_isinf(a); }
inline float abs(float a) { return __builtin_fabsf(a); }
inline float pow(float a, float b) { return __builtin_powf(a, b); }
inline float powf(float a, float b) { return __builtin_powf(a, b); }
inline float fmaxf(float a, float b) { return __builtin_fmaxf(a, b); }
inline float fminf(float a, float b) { return __builtin_fminf(a, b); }
inline float fmodf(float a, float b) { return __builtin_fmodf(a, b); }
inline float rsqrt(float a) { return 1.0f / __builtin_sqrtf(a); }
inline float rsqrtf(float a) { return 1.0f / __builtin_sqrtf(a); }
#define OF_ONE(name) inline float name(float a) { return __builtin_##name##f(a); }
OF_ONE(exp) OF_ONE(exp2) OF_ONE(log) OF_ONE(log1p) OF_ONE(sqrt) OF_ONE(tanh) OF_ONE(sin) OF_ONE(cos) OF_ONE(erf)
OF_ONE(floor) OF_ONE(ceil) OF_ONE(trunc) OF_ONE(rint) OF_ONE(fabs)
template <class T> inline T max(T a, T b) { return a > b ? a : b; }
template <class T> inline T min(T a, T b) { return a < b ? a : b; }
#endif
