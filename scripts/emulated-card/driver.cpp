// The part of the CUDA driver that is needed to run a program's kernels on the processor, one thread after another.
//
// Device memory is the host's, up to EMULATED_MEMORY bytes (6 GB), beyond which it answers as a full card does. Kernels are host
// functions, see compiler.cpp. The threads of a block are fibers where they wait for each other, and a plain loop where not.
// EMULATED_REPORT=1 prints at the end how many kernels ran, and how often the host read and wrote.

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

// What was asked of the card.
static struct Counts {
    std::atomic<u64> kernels{0}, reads{0}, writes{0}, refused{0}, used{0}, most{0};
    ~Counts() {
        if (getenv("EMULATED_REPORT")) {
            fprintf(stderr, "emulated card: %llu kernels, %llu reads, %llu writes, %llu allocations refused, %.1f MB at most\n",
                    (u64)kernels, (u64)reads, (u64)writes, (u64)refused, most / 1e6);
        }
    }
} counts;

static u64 memory() {
    static u64 bytes = setting("EMULATED_MEMORY", 6ull << 30);
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

struct Kernel {
    void (*run)(void**);
    bool waits;
    std::string name;
};

// At a barrier of its block, or at one of its warp.
enum class State { Ready, Block, Warp, Done };

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
    // Warp by warp from barrier to barrier.
    for (bool left = true; left;) {
        left = false;
        for (u32 first = 0; first < threads; first += 32) {
            u32 end = first + 32 < threads ? first + 32 : threads;
            for (bool again = true; again;) {
                again = false;
                for (running = first; running < end; running++) {
                    if (fibers[running].state == State::Done || fibers[running].state == State::Block) continue;
                    place(running);
                    emulated_switch(&scheduler, fibers[running].stack);
                    again |= fibers[running].state == State::Warp;
                }
            }
        }
        for (Fiber& fiber : fibers) {
            if (fiber.state == State::Done) continue;
            fiber.state = State::Ready;
            left = true;
        }
    }
}

static int launch(const Kernel* of, EmulatedPlace grid, EmulatedPlace block, void** with) {
    static std::mutex lock;
    std::lock_guard<std::mutex> guard(lock);
    counts.kernels++;
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
int cuDeviceGetName(char* name, int size, int) { return snprintf(name, size, "NVIDIA GeForce GTX 1660 (emulated)"), SUCCESS; }
int cuDeviceGetUuid(char* id, int) { return memset(id, 7, 16), SUCCESS; }
int cuDeviceGetUuid_v2(char* id, int) { return memset(id, 7, 16), SUCCESS; }
int cuDeviceGetPCIBusId(char* id, int size, int) { return snprintf(id, size, "0000:01:00.0"), SUCCESS; }
int cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = memory(), SUCCESS; }
int cuMemGetInfo_v2(size_t* free, size_t* total) { return *total = memory(), *free = memory() - counts.used, SUCCESS; }

// Without tensor cores: their instructions are not emulated.
int cuDeviceGetAttribute(int* value, int attribute, int) {
    static const std::map<int, int> known = {
        {1, 1024}, {2, 1024}, {3, 1024}, {4, 64}, {5, 2147483647}, {6, 65535}, {7, 65535}, // threads and blocks
        {8, 49152}, {81, 233472}, {97, 232448},                                           // shared memory
        {10, 32}, {16, 20},                                                               // warp, multiprocessors
        {75, 7}, {76, 5},                                                                 // compute capability
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
int cuEventCreate(Clock::time_point** event, u32) { return *event = new Clock::time_point, SUCCESS; }
int cuEventDestroy_v2(Clock::time_point* event) { return delete event, SUCCESS; }
int cuEventRecord(Clock::time_point* event, void*) { return *event = Clock::now(), SUCCESS; }
int cuEventSynchronize(void*) { return SUCCESS; }
int cuEventQuery(void*) { return SUCCESS; }
int cuEventElapsedTime(float* milliseconds, const Clock::time_point* from, const Clock::time_point* to) {
    return *milliseconds = std::chrono::duration<float, std::milli>(*to - *from).count(), SUCCESS;
}
int cuEventElapsedTime_v2(float* milliseconds, const Clock::time_point* from, const Clock::time_point* to) {
    return cuEventElapsedTime(milliseconds, from, to);
}

int cuMemAlloc_v2(u64* at, size_t size) { return allocate(at, size); }
int cuMemAllocAsync(u64* at, size_t size, void*) { return allocate(at, size); }
int cuMemFree_v2(u64 at) { return release(at); }
int cuMemFreeAsync(u64 at, void*) { return release(at); }
int cuMemAllocHost_v2(void** at, size_t size) { return posix_memalign(at, 512, size ? size : 1) ? OUT_OF_MEMORY : SUCCESS; }
int cuMemFreeHost(void* at) { return free(at), SUCCESS; }
int cuMemcpyHtoDAsync_v2(u64 to, const void* from, size_t size, void*) { return counts.writes++, memcpy((void*)to, from, size), SUCCESS; }
int cuMemcpyDtoHAsync_v2(void* to, u64 from, size_t size, void*) { return counts.reads++, memcpy(to, (void*)from, size), SUCCESS; }
int cuMemcpyDtoDAsync_v2(u64 to, u64 from, size_t size, void*) { return memcpy((void*)to, (void*)from, size), SUCCESS; }

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
    for (size_t row = 0; row < copy->height; row++) memcpy(to + row * copy->to_pitch, from + row * copy->from_pitch, copy->width);
    return SUCCESS;
}

// What compiler.cpp gives out as PTX is the name of a library.
int cuModuleLoadData(void** module, const void* image) {
    void* library = dlopen((const char*)image, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "emulated card: %s\n", dlerror());
        return INVALID_IMAGE;
    }
    static const EmulatedCard card = {&here, barrier, warp_barrier, exchange, shared};
    *(const EmulatedCard**)dlsym(library, "emulated_card") = &card;
    *module = library;
    return SUCCESS;
}

int cuModuleGetFunction(void** function, void* module, const char* name) {
    auto run = (void (*)(void**))dlsym(module, (std::string("emulated_") + name).c_str());
    if (!run) return NOT_FOUND;
    *function = new Kernel{run, *(int*)dlsym(module, "emulated_waits") != 0, name};
    return SUCCESS;
}

int cuModuleUnload(void*) { return SUCCESS; }
int cuFuncSetAttribute(void*, int, int) { return SUCCESS; }
int cuFuncGetAttribute(int* value, int, void*) { return *value = 0, SUCCESS; }

int cuLaunchKernel(void* function, u32 gx, u32 gy, u32 gz, u32 bx, u32 by, u32 bz, u32, void*, void** with, void**) {
    return launch((const Kernel*)function, {gx, gy, gz}, {bx, by, bz}, with);
}
}
