"""What gives energies, forces and stresses: checkpoints of ours, foreign models, committees.

Each is a batched evaluator and an ASE calculator with the same numbers.
"""
