"""Prints the outputs of a stack, in JSON."""
import json
import sys

import boto3

stack = boto3.client("cloudformation").describe_stacks(StackName=sys.argv[1])["Stacks"][0]
print(json.dumps({output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}))
