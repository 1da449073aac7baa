"""Prints the parameters that a deployment with compute on EC2 takes: the account's own network, and
an AMI that stands in for AWS's, which the emulator does not have."""
import boto3

ec2 = boto3.client("ec2")
vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
subnets = [found["SubnetId"] for found in ec2.describe_subnets()["Subnets"] if found["VpcId"] == vpc]
boto3.client("ssm").put_parameter(Name="/ami", Type="String", Value="ami-00000001", Overwrite=True)
print(f"ComputeVpc={vpc}")
print(f"ComputeSubnets={','.join(subnets[:2])}")
print("ComputeAmi=/ami")
