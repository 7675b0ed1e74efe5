// Included by kernels that wait at barriers: see cuda/barrier.
