"""Writes over the parts of a run in the store: python3 spoil.py BUCKET KEY-OF-ITS-INDEX"""
import json
import sys

import boto3

bucket, index = sys.argv[1:]
s3 = boto3.client("s3")
for digest in json.load(s3.get_object(Bucket=bucket, Key=index)["Body"])["parts"]:
    key = index.rsplit("/", 1)[0] + "/" + digest
    size = s3.head_object(Bucket=bucket, Key=key)["ContentLength"]
    s3.put_object(Bucket=bucket, Key=key, Body=b"x" * size)
