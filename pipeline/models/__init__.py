"""What a fold model is: networks and tabular models, with their saving beside their loading.

`backbones/` obtains and loads pretrained networks, `deberta/` holds our attention for them, `tabular/` the models
without a network. May import settings, competitions and data; inference, training and members import it. Begin with
network.py and heads.py, then saved.py (member.json) and saved_network.py (weights).
"""
