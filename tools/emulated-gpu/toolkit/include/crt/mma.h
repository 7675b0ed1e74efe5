// On a GPU mma.h needs it.
