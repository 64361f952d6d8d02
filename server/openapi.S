/* openapi.yaml as bytes of the program. */
        .section .rodata
        .global openapi_yaml
        .global openapi_yaml_end
        .type openapi_yaml, %object
        .type openapi_yaml_end, %object
openapi_yaml:
        .incbin "openapi.yaml"
openapi_yaml_end:
        .byte 0
        .size openapi_yaml, openapi_yaml_end - openapi_yaml
        .section .note.GNU-stack,"",%progbits
