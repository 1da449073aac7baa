"""Starts an instance that carries the stack's tag, and prints its id; with an id, ends that one."""
import sys

import boto3

stack, *ids = sys.argv[1:]
ec2 = boto3.client("ec2")
if ids:
    ec2.terminate_instances(InstanceIds=ids)
else:
    template = ec2.describe_launch_templates()["LaunchTemplates"][0]["LaunchTemplateId"]
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "pfsession-stack", "Value": stack}]}]
    launch = {"LaunchTemplateId": template}
    started = ec2.run_instances(MinCount=1, MaxCount=1, InstanceType="m7i.large", LaunchTemplate=launch, TagSpecifications=tags)
    print(started["Instances"][0]["InstanceId"])
