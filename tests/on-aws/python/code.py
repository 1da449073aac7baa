"""Prints the digest of the code of each function whose name begins with the argument, one a
line."""
import sys

import boto3

for function in boto3.client("lambda").list_functions()["Functions"]:
    if function["FunctionName"].startswith(sys.argv[1]):
        print(function["FunctionName"], function["CodeSha256"])
