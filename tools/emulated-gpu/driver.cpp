// The part of the CUDA driver that is needed to run a program's kernels on the CPU, one thread after another.
//
// Device memory is the host's, up to EMULATED_MEMORY bytes (6 GB), beyond which it answers as a full GPU does. Kernels are host
// functions, see compiler.cpp. The threads of a block are fibers where they wait for each other, and a plain loop where not.
// EMULATED_CAPABILITY says which GPU it is: at 90 one that computes nothing. EMULATED_REPORT=1 prints at the end how many kernels ran, and how often the host read and
// wrote; where it is a path, there.

#include <dlfcn.h>
#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "toolkit/include/emulated.h"

using u32 = uint32_t;
using u64 = unsigned long long;
using Clock = std::chrono::steady_clock;

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_SUCH_DEVICE = 101, INVALID_IMAGE = 200, NOT_FOUND = 500 };

static u64 setting(const char* name, u64 otherwise) {
    const char* value = getenv(name);
    return value ? strtoull(value, nullptr, 10) : otherwise;
}

// What was asked of the GPU.
static struct Counts {
    std::atomic<u64> kernels{0}, wmma{0}, mma{0}, reads{0}, writes{0}, refused{0}, used{0}, most{0};
    ~Counts() {
        const char* path = getenv("EMULATED_REPORT");
        FILE* to = path && *path == '/' ? fopen(path, "a") : stderr;
        if (!path || !to) return;
        fprintf(to, "emulated GPU: %llu kernels (%llu of wmma, %llu of mma.sync), %llu reads, %llu writes, %llu allocations refused, %.1f MB at most\n",
                (u64)kernels, (u64)wmma, (u64)mma, (u64)reads, (u64)writes, (u64)refused, most / 1e6);
    }
} counts;

// What the GPU says that it is.
struct Gpu {
    int capability, processors, shared, shared_of_block;
    const char* name;
};

// Burn goes by the name too: of GPUs of 7.5, those that are called GTX have no tensor cores.
static const Gpu& gpu() {
    static const Gpu gpus[] = {
        {75, 22, 65536, 65536, "NVIDIA GeForce GTX 1660 (emulated)"},
        {80, 108, 167936, 166912, "NVIDIA A100 (emulated)"},
        {90, 132, 233472, 232448, "NVIDIA H100 (idle)"},
    };
    static const u64 asked = setting("EMULATED_CAPABILITY", 75);
    static const Gpu& it = gpus[(asked >= 80) + (asked >= 90)];
    return it;
}

// Takes everything and computes nothing: its memory is not touched, so that it can be larger than the host's, and what is read is 0.
static bool idle() { return gpu().capability == 90; }

static u64 memory() {
    static u64 bytes = setting("EMULATED_MEMORY", idle() ? 80ull << 30 : 6ull << 30);
    return bytes;
}

static std::mutex blocks_lock;
static std::map<u64, u64> blocks;

static int allocate(u64* at, size_t size) {
    void* found = nullptr;
    if (counts.used + size > memory() || posix_memalign(&found, 512, size ? size : 1)) {
        counts.refused++;
        return OUT_OF_MEMORY;
    }
    u64 used = counts.used += size;
    if (used > counts.most) counts.most = used;
    std::lock_guard<std::mutex> guard(blocks_lock);
    blocks[(u64)found] = size;
    *at = (u64)found;
    return SUCCESS;
}

static int release(u64 at) {
    std::lock_guard<std::mutex> guard(blocks_lock);
    auto block = blocks.find(at);
    if (block == blocks.end()) return INVALID_VALUE;
    counts.used -= block->second;
    blocks.erase(block);
    free((void*)at);
    return SUCCESS;
}

// ---------------------------------------------------------------------------------------------------- kernels

enum Cores { NONE, WMMA, MMA };

struct Kernel {
    void (*run)(void**);
    bool waits;
    int cores;
    std::string name;
};

// At a barrier of its block, at one of its warp, or until others have come further.
enum class State { Ready, Block, Warp, Wait, Done };

struct Fiber {
    void* stack;
    State state;
};

static EmulatedThread here;
static std::vector<Fiber> fibers;
static size_t running;
static void* scheduler;
static const Kernel* kernel;
static void** arguments;
alignas(1024) static char shared[1 << 20];

extern "C" void emulated_switch(void** from, void* to);
asm(R"(
.text
.globl emulated_switch
.type emulated_switch,@function
emulated_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp,(%rdi)
    movq %rsi,%rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulated_switch,.-emulated_switch
)");

static void leave(State state) {
    Fiber& fiber = fibers[running];
    fiber.state = state;
    emulated_switch(&fiber.stack, scheduler);
}

static void barrier() { leave(State::Block); }
static void warp_barrier() { leave(State::Warp); }
static void wait() { leave(State::Wait); }

// What a thread of the warp has to give: all give, and then all take.
static u32 exchange(u32 value, u32 lane) {
    static u32 given[1024];
    given[running] = value;
    leave(State::Warp);
    u32 taken = given[running / 32 * 32 + lane % 32];
    leave(State::Warp);
    return taken;
}

static void begin() {
    kernel->run(arguments);
    leave(State::Done);
}

static void place(u32 thread) { here.thread = {thread % here.block.x, thread / here.block.x % here.block.y, thread / here.block.x / here.block.y}; }

static void run_block(u32 threads) {
    if (!kernel->waits) {
        for (u32 thread = 0; thread < threads; thread++) {
            place(thread);
            kernel->run(arguments);
        }
        return;
    }
    const size_t stack = 128 << 10;
    static char* stacks = (char*)mmap(nullptr, stack * 1024, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    fibers.assign(threads, {});
    for (u32 thread = 0; thread < threads; thread++) {
        void** top = (void**)(stacks + stack * (thread + 1));
        *--top = nullptr;
        *--top = (void*)begin;
        for (int saved = 0; saved < 6; saved++) *--top = nullptr;
        fibers[thread] = {top, State::Ready};
    }
    auto all = [&](u32 first, u32 end, State from, State to) {
        bool some = false;
        for (u32 thread = first; thread < end; thread++) {
            if (fibers[thread].state != from) continue;
            fibers[thread].state = to;
            some = true;
        }
        return some;
    };
    // Warp by warp from barrier to barrier. Where a thread waits for others, those that are further wait for it.
    for (bool left = true; left;) {
        bool some_wait = false;
        for (u32 first = 0; first < threads; first += 32) {
            u32 end = first + 32 < threads ? first + 32 : threads;
            for (bool again = true; again;) {
                for (running = first; running < end; running++) {
                    if (fibers[running].state != State::Ready) continue;
                    place(running);
                    emulated_switch(&scheduler, fibers[running].stack);
                }
                bool waits = all(first, end, State::Wait, State::Wait);
                again = !waits && all(first, end, State::Warp, State::Ready);
                some_wait |= waits;
            }
        }
        left = all(0, threads, some_wait ? State::Wait : State::Block, State::Ready);
    }
}

// The GPU's clock, in milliseconds. Tensor cores are slow here and fast on a GPU: what they run counts so much less that Burn's tuner
// takes them wherever it tries them.
static std::atomic<double> gpu_clock{0};
static const double LAUNCH = 0.003, TENSOR_CORES_FASTER = 1000;

static int launch(const Kernel* of, EmulatedPlace grid, EmulatedPlace block, void** with) {
    static std::mutex lock;
    std::lock_guard<std::mutex> guard(lock);
    auto since = Clock::now();
    counts.kernels++;
    counts.wmma += of->cores == WMMA;
    counts.mma += of->cores == MMA;
    if (idle()) {
        // Burn measures the GPU first, with ever larger work until it takes a while.
        if (of->name.find("throughput") != std::string::npos) std::this_thread::sleep_for(std::chrono::milliseconds(20));
        return SUCCESS;
    }
    kernel = of;
    arguments = with;
    here.grid = grid;
    here.block = block;
    for (u32 z = 0; z < grid.z; z++)
        for (u32 y = 0; y < grid.y; y++)
            for (u32 x = 0; x < grid.x; x++) {
                here.cube = {x, y, z};
                run_block(block.x * block.y * block.z);
            }
    double took = std::chrono::duration<double, std::milli>(Clock::now() - since).count();
    gpu_clock = gpu_clock + LAUNCH + (of->cores == NONE ? took : took / TENSOR_CORES_FASTER);
    return SUCCESS;
}

// ---------------------------------------------------------------------------------------------------- the driver's functions

extern "C" {

int cuInit(u32) { return SUCCESS; }
int cuDriverGetVersion(int* version) { return *version = 12080, SUCCESS; }
int cuGetErrorName(int error, const char** name) { return *name = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_EMULATED", SUCCESS; }
int cuGetErrorString(int error, const char** text) { return *text = error == OUT_OF_MEMORY ? "out of memory" : "not emulated", SUCCESS; }

int cuDeviceGetCount(int* count) { return *count = 1, SUCCESS; }
int cuDeviceGet(int* device, int index) { return index == 0 ? (*device = 0, SUCCESS) : NO_SUCH_DEVICE; }
int cuDeviceGetName(char* name, int size, int) { return snprintf(name, size, "%s", gpu().name), SUCCESS; }
int cuDeviceGetUuid(char* id, int) { return memset(id, 7, 16), SUCCESS; }
int cuDeviceGetUuid_v2(char* id, int) { return memset(id, 7, 16), SUCCESS; }
int cuDeviceGetPCIBusId(char* id, int size, int) { return snprintf(id, size, "0000:01:00.0"), SUCCESS; }
int cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = memory(), SUCCESS; }
int cuMemGetInfo_v2(size_t* free, size_t* total) { return *total = memory(), *free = memory() - counts.used, SUCCESS; }

int cuDeviceGetAttribute(int* value, int attribute, int) {
    static const std::map<int, int> known = {
        {1, 1024}, {2, 1024}, {3, 1024}, {4, 64}, {5, 2147483647}, {6, 65535}, {7, 65535},                // threads and blocks
        {8, 49152}, {81, gpu().shared}, {97, gpu().shared_of_block}, {10, 32}, {16, gpu().processors}, // shared memory, warp, multiprocessors
        {75, gpu().capability / 10}, {76, gpu().capability % 10},
    };
    auto found = known.find(attribute);
    *value = found == known.end() ? 0 : found->second;
    return SUCCESS;
}

int cuDevicePrimaryCtxRetain(void** context, int) { return *context = &here, SUCCESS; }
int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
int cuCtxSetCurrent(void*) { return SUCCESS; }
int cuCtxGetCurrent(void** context) { return *context = &here, SUCCESS; }
int cuCtxSynchronize() { return SUCCESS; }
int cuCtxGetStreamPriorityRange(int* least, int* greatest) { return *least = 0, *greatest = -5, SUCCESS; }

// Everything happens at once, in the order that it is asked for.
int cuStreamCreate(void** stream, u32) { return *stream = malloc(1), SUCCESS; }
int cuStreamCreateWithPriority(void** stream, u32, int) { return *stream = malloc(1), SUCCESS; }
int cuStreamDestroy_v2(void* stream) { return free(stream), SUCCESS; }
int cuStreamSynchronize(void*) { return SUCCESS; }
int cuStreamWaitEvent(void*, void*, u32) { return SUCCESS; }
int cuStreamIsCapturing(void*, int* state) { return *state = 0, SUCCESS; }
int cuEventCreate(double** event, u32) { return *event = new double, SUCCESS; }
int cuEventDestroy_v2(double* event) { return delete event, SUCCESS; }
int cuEventRecord(double* event, void*) { return *event = gpu_clock, SUCCESS; }
int cuEventSynchronize(void*) { return SUCCESS; }
int cuEventQuery(void*) { return SUCCESS; }
int cuEventElapsedTime(float* milliseconds, const double* from, const double* to) { return *milliseconds = *to - *from, SUCCESS; }
int cuEventElapsedTime_v2(float* milliseconds, const double* from, const double* to) { return cuEventElapsedTime(milliseconds, from, to); }

int cuMemAlloc_v2(u64* at, size_t size) { return allocate(at, size); }
int cuMemAllocAsync(u64* at, size_t size, void*) { return allocate(at, size); }
int cuMemFree_v2(u64 at) { return release(at); }
int cuMemFreeAsync(u64 at, void*) { return release(at); }
int cuMemAllocHost_v2(void** at, size_t size) { return posix_memalign(at, 512, size ? size : 1) ? OUT_OF_MEMORY : SUCCESS; }
int cuMemFreeHost(void* at) { return free(at), SUCCESS; }
int cuMemcpyHtoDAsync_v2(u64 to, const void* from, size_t size, void*) { return counts.writes++, idle() || memcpy((void*)to, from, size), SUCCESS; }
int cuMemcpyDtoHAsync_v2(void* to, u64 from, size_t size, void*) { return counts.reads++, idle() ? memset(to, 0, size) : memcpy(to, (void*)from, size), SUCCESS; }
int cuMemcpyDtoDAsync_v2(u64 to, u64 from, size_t size, void*) { return idle() || memcpy((void*)to, (void*)from, size), SUCCESS; }

struct Copy2D {
    size_t from_x, from_y; u32 from_kind; const void* from_host; u64 from_device; void* from_array; size_t from_pitch;
    size_t to_x, to_y; u32 to_kind; void* to_host; u64 to_device; void* to_array; size_t to_pitch;
    size_t width, height;
};

int cuMemcpy2DAsync_v2(const Copy2D* copy, void*) {
    const u32 host = 1;
    auto from = (copy->from_kind == host ? (const char*)copy->from_host : (const char*)copy->from_device) + copy->from_y * copy->from_pitch + copy->from_x;
    auto to = (copy->to_kind == host ? (char*)copy->to_host : (char*)copy->to_device) + copy->to_y * copy->to_pitch + copy->to_x;
    if (copy->to_kind == host) counts.reads++;
    else if (copy->from_kind == host) counts.writes++;
    for (size_t row = 0; row < copy->height && !idle(); row++) memcpy(to + row * copy->to_pitch, from + row * copy->from_pitch, copy->width);
    return SUCCESS;
}

// What compiler.cpp gives out as PTX is the name of a library.
int cuModuleLoadData(void** module, const void* image) {
    if (idle()) return *module = (void*)image, SUCCESS;
    void* library = dlopen((const char*)image, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "emulated GPU: %s\n", dlerror());
        return INVALID_IMAGE;
    }
    static const EmulatedGpu gpu = {&here, barrier, warp_barrier, exchange, wait, shared};
    *(const EmulatedGpu**)dlsym(library, "emulated_gpu") = &gpu;
    *module = library;
    return SUCCESS;
}

int cuModuleGetFunction(void** function, void* module, const char* name) {
    if (idle()) return *function = new Kernel{nullptr, false, NONE, name}, SUCCESS;
    auto run = (void (*)(void**))dlsym(module, (std::string("emulated_") + name).c_str());
    if (!run) return NOT_FOUND;
    *function = new Kernel{run, *(int*)dlsym(module, "emulated_waits") != 0, *(int*)dlsym(module, "emulated_cores"), name};
    return SUCCESS;
}

// Of where a tile lies in memory; for kernels that the idle GPU alone is given.
int cuTensorMapEncodeTiled(void*, int, u32, void*, const u64*, const u64*, const u32*, const u32*, int, int, int, int) { return SUCCESS; }

int cuModuleUnload(void*) { return SUCCESS; }
int cuFuncSetAttribute(void*, int, int) { return SUCCESS; }
int cuFuncGetAttribute(int* value, int, void*) { return *value = 0, SUCCESS; }

int cuLaunchKernel(void* function, u32 gx, u32 gy, u32 gz, u32 bx, u32 by, u32 bz, u32, void*, void** with, void**) {
    return launch((const Kernel*)function, {gx, gy, gz}, {bx, by, bz}, with);
}
}
