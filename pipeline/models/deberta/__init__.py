"""DeBERTa's disentangled attention, made fast: equal to transformers' within rounding, on its weights.

disentangled.py is the drop-in, attention_cpu.py and attention_gpu.py the two ways to compute it, positions.py the
relative positions, packing.py leaves padding out, dropout.py draws masks quickly on a CPU. models/backbones/loading.py
switches it on. Begin with disentangled.py.
"""
