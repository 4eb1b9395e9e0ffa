"""The member kind `tabular`: TF-IDF and text features under logistic regressions or LightGBM.

model.py is the fold model, head_inputs.py what its heads see, tfidf.py counts n-grams; linear_head.py and boosting.py
fit the heads. No torch. Begin with model.py.
"""
