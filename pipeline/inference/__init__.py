"""The prediction call that training and kernel share: one renderer, one truncation, one forward pass.

predict.py opens a fold model and asks it; network_member.py asks one pass by pass, open_network.py puts it on a device,
forward.py computes logits of batches, precision.py rescues overflows; passes.py and parity.py need NumPy alone. May
import settings, competitions, data and models, never training, so that the package ships without training code.
"""
