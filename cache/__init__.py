"""The semantic cache: may this answer be served again?"""
