// In place of NVRTC: kernels become libraries for the host, see translate.py, and what is given out as PTX is their path.
//
// EMULATED_FOLDER is where they are kept. Where EMULATED_NVRTC names NVIDIA's own library, each kernel has to pass it as well. Kernels in
// which the text EMULATED_WITHOUT occurs are refused, so that those that do the same in another way have their turn.

#include <dlfcn.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <string>

struct Program {
    std::string source, log, image;
};

static const int COMPILATION_FAILED = 6;

static struct Counts {
    std::atomic<int> compiled{0}, refused{0};
    ~Counts() {
        if (getenv("EMULATED_REPORT")) fprintf(stderr, "emulated compiler: %d kernels compiled, %d refused\n", (int)compiled, (int)refused);
    }
} counts;

static bool accepted(Program* program, int count, const char* const* options) {
    const char* path = getenv("EMULATED_NVRTC");
    if (!path) return true;
    static void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        program->log = dlerror();
        return false;
    }
    auto create = (int (*)(void**, const char*, const char*, int, const char* const*, const char* const*))dlsym(library, "nvrtcCreateProgram");
    auto compile = (int (*)(void*, int, const char* const*))dlsym(library, "nvrtcCompileProgram");
    auto log_size = (int (*)(void*, size_t*))dlsym(library, "nvrtcGetProgramLogSize");
    auto log = (int (*)(void*, char*))dlsym(library, "nvrtcGetProgramLog");
    void* real = nullptr;
    create(&real, program->source.c_str(), nullptr, 0, nullptr, nullptr);
    bool passed = compile(real, count, options) == 0;
    size_t size = 0;
    log_size(real, &size);
    program->log.resize(size);
    log(real, &program->log[0]);
    return passed;
}

static bool translated(Program* program) {
    const char* without = getenv("EMULATED_WITHOUT");
    if (without && program->source.find(without) != std::string::npos) {
        program->log = std::string("without ") + without;
        return false;
    }
    const char* capability = getenv("EMULATED_CAPABILITY");
    // What the GPU of 9.0 does with a kernel is nothing.
    if (capability && atoi(capability) == 90) return program->image = "nothing", true;
    std::string folder = getenv("EMULATED_FOLDER") ? getenv("EMULATED_FOLDER") : ".";
    std::string base = folder + "/kernel-" + std::to_string(std::hash<std::string>()(program->source));
    program->image = base + ".so";
    if (access(program->image.c_str(), R_OK) == 0) return true;
    std::ofstream(base + ".cu") << program->source;
    std::string tools = getenv("EMULATED_TOOLS") ? getenv("EMULATED_TOOLS") : ".";
    std::string command = "{ python3 " + tools + "/translate.py " + base + ".cu " + base + ".cpp && g++ -w -O2 -ffp-contract=off -fno-strict-aliasing " +
                          "-std=c++17 -fPIC -shared -I" + tools + "/toolkit/include -o " + base + ".part " + base + ".cpp && mv " + base + ".part " + program->image + "; } 2>" + base + ".log";
    if (system(command.c_str()) == 0) return true;
    program->log = "not translated, see " + base + ".log";
    return false;
}

extern "C" {
int nvrtcVersion(int* major, int* minor) { return *major = 12, *minor = 8, 0; }
int nvrtcGetNumSupportedArchs(int* count) { return *count = 3, 0; }
int nvrtcGetSupportedArchs(int* which) { return which[0] = 75, which[1] = 80, which[2] = 90, 0; }
const char* nvrtcGetErrorString(int) { return "the kernel was refused"; }
int nvrtcCreateProgram(Program** program, const char* source, const char*, int, const char* const*, const char* const*) { return *program = new Program{source}, 0; }
int nvrtcDestroyProgram(Program** program) { return delete *program, 0; }
int nvrtcCompileProgram(Program* program, int count, const char* const* options) {
    if (accepted(program, count, options) && translated(program)) return counts.compiled++, 0;
    counts.refused++;
    // Of several kernels that do the same, the others are tried.
    if (getenv("EMULATED_REPORT")) fprintf(stderr, "emulated GPU: %s\n", program->log.c_str());
    return COMPILATION_FAILED;
}
int nvrtcGetPTXSize(Program* program, size_t* size) { return *size = program->image.size() + 1, 0; }
int nvrtcGetPTX(Program* program, char* image) { return memcpy(image, program->image.c_str(), program->image.size() + 1), 0; }
int nvrtcGetProgramLogSize(Program* program, size_t* size) { return *size = program->log.size() + 1, 0; }
int nvrtcGetProgramLog(Program* program, char* log) { return memcpy(log, program->log.c_str(), program->log.size() + 1), 0; }
}
