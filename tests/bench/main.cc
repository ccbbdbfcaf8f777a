// Micro-benchmarks of the hot paths. They measure and judge nothing: what a figure means depends on
// the machine.

#include <benchmark/benchmark.h>
#include <malloc.h>

int main(int argc, char** argv) {
  // The heap keeps what is given back to it, as it comes to do in a broker under load. Otherwise
  // the memory of each large block is the kernel's in between, or is not, by what ran before: a
  // difference of several times.
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
