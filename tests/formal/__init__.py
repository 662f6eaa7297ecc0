"""Proofs of the hand-shakes and of the arithmetic, for all inputs: docs/verification.md."""
