"""Instruction data as in LLaVA (Liu et al., 2023, section 3): writers read captions and boxes, never a picture."""
