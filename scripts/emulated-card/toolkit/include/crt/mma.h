// On a card mma.h needs it.
