"""ROME, MEMIT and EMMET in plain PyTorch, in the way in which their published code works.

Written for measuring: one request after the other, whole prompts forward and backward in every step, logits at every
position, a pass over the corpus for each layer, a dense float64 solve for each batch. `python -m reference check` compares it
with numbers that the authors' own code produced, so that what is timed is known to be the same computation.
"""
