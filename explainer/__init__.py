"""Why did the model put this box here, or why not? Visual explanations for the detections of YOLOv5 and its like.

    explainer.py, evaluate.py   the two commands, from `command` and `evaluation`
    explain.py, comparing.py    Explainer and Comparer: an image in, an answer out
    attribution.py, combining.py, subjects.py, explanation.py, settings.py   on the way there
    methods, pictures           how evidence becomes a map; what an answer looks like
    detectors                   what a model is for the explainer: the seam to add others at
    maps, files, checkpoints    arrays; what is read and written; models as data

Each imports only from what stands below it.
"""
