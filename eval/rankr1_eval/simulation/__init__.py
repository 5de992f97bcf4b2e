"""A study of the selection algorithms under simulated judges, on a real first-stage order. No model is asked.

judges    the queries with the grades of their candidates, and who answers
study     all algorithms against all judges, with means, intervals and paired differences
tables    the result as JSON and as Markdown
picture   the result as one picture
"""
